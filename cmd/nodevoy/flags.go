// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/nodevoy/nodevoy/agent"
)

// nodeFlags are the flags of every command that speaks of one node.
func nodeFlags(f *pflag.FlagSet, cfg *agent.Config) {
	f.StringVar(&cfg.NodeName, "node-name", cfg.NodeName, "name of this node's Node object")
	f.StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's and Envoy's sockets")
}

// redirectFlags say what redirection does to the kernel.
func redirectFlags(f *pflag.FlagSet, cfg *agent.Config) {
	r := &cfg.Redirect
	f.TextVar(&r.Mode, "redirect-mode", r.Mode, "where connections are redirected: in each enrolled pod's network namespace (pod), in the node's (host), or auto")
	f.TextVar(&r.Mechanism, "mechanism", r.Mechanism, "how host mode redirects: auto, dnat or tproxy")
	f.TextVar(&r.Backend, "iptables", r.Backend, "which iptables to use: auto (what kube-proxy uses), nft or legacy")
	f.DurationVar(&r.Timeout, "redirect-timeout", r.Timeout, "redirection ends by itself when it was not renewed for this long")
	f.Var(addrVar{&r.Address4, true}, "listener-address4", "link-local IPv4 address put on lo, where Envoy listens in host mode")
	f.Var(addrVar{&r.Address6, false}, "listener-address6", "IPv6 address put on lo, where Envoy listens in host mode")
	f.Var(portVar{&r.Ports.TCP}, "listener-port-tcp", "port of Envoy's listener for plain TCP")
	f.Var(portVar{&r.Ports.HTTP}, "listener-port-http", "port of Envoy's listener for HTTP")
	f.Var(portVar{&r.Ports.Detect}, "listener-port-detect", "port of Envoy's listener that detects the protocol")
	f.Var(hexVar{&r.Mark}, "mark", "bits of the packet mark that tproxy uses, and Envoy in pod mode; disjoint from those of the CNI and of Kubernetes")
	f.IntVar(&r.Table, "route-table", r.Table, "routing table that tproxy uses")
}

// netnsFlags say where pods' network namespaces are.
func netnsFlags(f *pflag.FlagSet, cfg *agent.Config) {
	f.StringSliceVar(&cfg.Netns.Dirs, "netns-dir", cfg.Netns.Dirs, "directory in which the container runtime has pods' network namespaces, at the same path for Envoy; may be given several times")
	f.StringVar(&cfg.Netns.Proc, "proc", cfg.Netns.Proc, "the node's /proc, to find in it those network namespaces that are in no directory; empty for not at all")
}

// envoyFlags say how Envoy behaves.
func envoyFlags(f *pflag.FlagSet, cfg *agent.Config) {
	x := &cfg.XDS
	f.TextVar(&x.AccessLog, "access-log", x.AccessLog, "access log on Envoy's standard output: text, json or off")
	f.DurationVar(&x.DiscoveryTimeout, "discovery-timeout", x.DiscoveryTimeout, "how long a connection waits for the first configuration of its Service")
	f.DurationVar(&x.DetectTimeout, "detect-timeout", x.DetectTimeout, "how long a connection of undeclared protocol waits for the client's first bytes")
	f.DurationVar(&x.ConnectTimeout, "connect-timeout", x.ConnectTimeout, "how long Envoy waits for a connection to a backend")
	f.Uint32Var(&x.MaxConnectionsPerPod, "max-connections-per-pod", x.MaxConnectionsPerPod, "in pod mode, how many connections of a pod Envoy takes at a time, of each class: http, tcp, detect")
}

// modelFlags say which pods and Services take part.
func modelFlags(f *pflag.FlagSet, cfg *agent.Config) {
	m := &cfg.Model
	f.StringSliceVar(&m.ExcludedNamespaces, "excluded-namespaces", m.ExcludedNamespaces, "namespaces whose Services and pods are never touched")
	f.TextVar(&m.NamespaceSelector, "namespace-selector", m.NamespaceSelector, "label selector of the namespaces whose pods are opted in")
	f.Var(portsVar{&m.OpaquePorts}, "opaque-ports", "ports taken for plain TCP when nothing declares their protocol")
}

// addrVar is an address of one family.
type addrVar struct {
	p  *netip.Addr
	v4 bool
}

func (v addrVar) String() string { return v.p.String() }
func (v addrVar) Type() string   { return "address" }
func (v addrVar) Set(s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return fmt.Errorf("%q is no IP address", s)
	}
	if a.Is4() != v.v4 {
		return fmt.Errorf("%s is of the other address family", s)
	}
	*v.p = a
	return nil
}

// portVar is a TCP port.
type portVar struct{ p *uint16 }

func (v portVar) String() string { return strconv.Itoa(int(*v.p)) }
func (v portVar) Type() string   { return "port" }
func (v portVar) Set(s string) error {
	n, err := parsePort(s)
	if err == nil {
		*v.p = n
	}
	return err
}

// portsVar is a list of TCP ports.
type portsVar struct{ p *[]uint16 }

func (v portsVar) Type() string { return "ports" }
func (v portsVar) String() string {
	words := make([]string, len(*v.p))
	for i, n := range *v.p {
		words[i] = strconv.Itoa(int(n))
	}
	return strings.Join(words, ",")
}

func (v portsVar) Set(s string) error {
	var ports []uint16
	for word := range strings.SplitSeq(s, ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		n, err := parsePort(word)
		if err != nil {
			return err
		}
		ports = append(ports, n)
	}
	*v.p = ports
	return nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port from 1 to 65535", s)
	}
	return uint16(n), nil
}

// hexVar is a number, best written in hexadecimal.
type hexVar struct{ p *uint32 }

func (v hexVar) String() string { return fmt.Sprintf("%#x", *v.p) }
func (v hexVar) Type() string   { return "bits" }
func (v hexVar) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return fmt.Errorf("%q is no 32-bit number", s)
	}
	*v.p = uint32(n)
	return nil
}
