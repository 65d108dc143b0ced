// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/model"
)

// nodeFlags are the flags of every command that speaks of one node.
func nodeFlags(f *pflag.FlagSet, cfg *agent.Config) {
	f.StringVar(&cfg.NodeName, "node-name", cfg.NodeName, "name of this node's Node object")
	f.StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's and Envoy's sockets")
}

// socketFlags say for whom the sockets are that the agent and Envoy share.
func socketFlags(f *pflag.FlagSet, cfg *agent.Config) {
	f.IntVar(&cfg.XDS.Group, "envoy-group", cfg.XDS.Group, "number of the group that Envoy runs as, which the agent is in too; 0 if Envoy runs as the agent's user")
}

// redirectFlags say what redirection does to the kernel.
func redirectFlags(f *pflag.FlagSet, cfg *agent.Config) {
	r := &cfg.Redirect
	f.TextVar(&r.Mode, "redirect-mode", r.Mode, "where connections are redirected: in each enrolled pod's network namespace (pod), in the node's (host), or auto")
	f.TextVar(&r.Mechanism, "mechanism", r.Mechanism, "how host mode redirects: auto, dnat or tproxy")
	f.TextVar(&r.Backend, "iptables", r.Backend, "which iptables to use: auto (what kube-proxy uses), nft or legacy")
	f.DurationVar(&r.Timeout, "redirect-timeout", r.Timeout, "redirection ends by itself when it was not renewed for this long")
	f.Var(addrVar(&r.Address4, true), "listener-address4", "link-local IPv4 address put on lo, where Envoy listens in host mode")
	f.Var(addrVar(&r.Address6, false), "listener-address6", "IPv6 address put on lo, where Envoy listens in host mode")
	f.Var(portVar(&r.Ports.TCP), "listener-port-tcp", "port of Envoy's listener for plain TCP")
	f.Var(portVar(&r.Ports.HTTP), "listener-port-http", "port of Envoy's listener for HTTP")
	f.Var(portVar(&r.Ports.Detect), "listener-port-detect", "port of Envoy's listener that detects the protocol")
	f.Var(hexVar(&r.Mark), "mark", "bits of the packet mark that tproxy uses, and Envoy in pod mode; disjoint from those of the CNI and of Kubernetes")
	f.IntVar(&r.Table, "route-table", r.Table, "routing table that tproxy uses")
	f.Uint32Var(&r.MaxConnections, "max-connections-per-pod", r.MaxConnections, "how many connections of a pod are redirected at a time; further ones are left to kube-proxy; 0 for no limit. Not with tproxy")
	f.Uint32Var(&r.MaxConnectionRate, "max-connection-rate-per-pod", r.MaxConnectionRate, "how many connections of a pod are redirected in a second; further ones are left to kube-proxy; 0 for no limit. Not with tproxy")
}

// netnsFlags say where pods' network namespaces are.
func netnsFlags(f *pflag.FlagSet, cfg *agent.Config) {
	f.StringSliceVar(&cfg.Netns.Dirs, "netns-dir", cfg.Netns.Dirs, "directory in which the container runtime has pods' network namespaces, at the same path for Envoy; may be given several times")
	f.StringVar(&cfg.Netns.Proc, "proc", cfg.Netns.Proc, "the node's /proc, to find in it those network namespaces that are in no directory; empty for not at all")
}

// envoyFlags say how Envoy behaves.
func envoyFlags(f *pflag.FlagSet, cfg *agent.Config) {
	x := &cfg.XDS
	telemetryFlags(f, cfg)
	f.TextVar(&cfg.Flows.Share, "flows", cfg.Flows.Share, "which flows Envoy sends to the agent while nobody follows them: those that failed (failed), a share of all besides, such as 1%, all, or off for none at any time")
	f.IntVar(&cfg.Flows.Kept, "flows-kept", cfg.Flows.Kept, "how many of the last flows the agent keeps, of about 1 kB each")
	f.BoolVar(&cfg.Flows.Query, "flows-query", cfg.Flows.Query, "keep the queries of paths in flows, which may have secrets in them")
	f.TextVar(&cfg.Flows.Kernel, "kernel-flows", cfg.Flows.Kernel, "how many connections of pods that don't go through Envoy are shown as flows in a second, as the kernel tracks them; beyond it, a share of them; or off")
	f.BoolVar(&x.RequestMetrics, "request-metrics", x.RequestMetrics, "count HTTP requests in Envoy, and how long they take, by Service port: a twentieth of what a request costs")
	f.DurationVar(&x.DiscoveryTimeout, "discovery-timeout", x.DiscoveryTimeout, "how long a connection waits for the first configuration of its Service")
	f.DurationVar(&x.DetectTimeout, "detect-timeout", x.DetectTimeout, "how long a connection of undeclared protocol waits for the client's first bytes")
	f.DurationVar(&x.ConnectTimeout, "connect-timeout", x.ConnectTimeout, "how long Envoy waits for a connection to a backend")
	f.Uint32Var(&x.MaxRequestRate, "max-request-rate-per-pod", x.MaxRequestRate, "how many HTTP requests of a pod are served in a second; Envoy answers 429 above it; 0 for no limit")
	f.Uint32Var(&x.MaxHeadersKiB, "max-headers-kib", x.MaxHeadersKiB, "maximum size of a request's headers, in KiB; Envoy answers 431 above it")
	f.Uint32Var(&x.MaxStreams, "max-streams", x.MaxStreams, "maximum number of requests at a time on one HTTP/2 connection of a client")
	f.Var(bytesVar(&x.ClusterMemory), "cluster-memory", "how much of Envoy's memory Services in use may take, such as 256Mi; close to it, the least used ones are left to kube-proxy; 0 for no limit")
}

// telemetryFlags say what of the pods' calls is logged and traced.
func telemetryFlags(f *pflag.FlagSet, cfg *agent.Config) {
	x := &cfg.XDS
	f.TextVar(&x.AccessLog, "access-log", x.AccessLog, "access log on Envoy's standard output: text, json or off")
	f.TextVar(&x.AccessLogFormat, "access-log-format", x.AccessLogFormat, "format of a line of text, of Envoy's commands such as %REQ(USER-AGENT)%, and of %NODEVOY(COLUMN)%; empty for the fixed columns")
	f.TextVar(&x.AccessLogFilter, "access-log-filter", x.AccessLogFilter, "what is logged: all, off, or what any of a list selects: errors, slower=DURATION, sample=PERCENTAGE")
	f.BoolVar(&x.AccessLogOTLP, "access-log-otlp", x.AccessLogOTLP, "send the access log to --otlp-endpoint too")
	f.TextVar(&x.Tracing, "tracing", x.Tracing, "which share of the requests that belong to no trace begins one, such as 5%; requests of a trace that is recorded are then traced, too; 0% traces nothing")
	f.BoolVar(&x.TelemetryAnnotations, "telemetry-annotations", x.TelemetryAnnotations, "in pod mode, let namespaces choose what of their pods' calls is logged and traced, by the annotations "+model.AccessLogAnnotation+" and "+model.TracingAnnotation)
	collectorFlags(f, cfg)
	logFileFlags(f, cfg)
}

// collectorFlags say where the collector is, also to Envoy's bootstrap configuration.
func collectorFlags(f *pflag.FlagSet, cfg *agent.Config) {
	f.StringVar(&cfg.XDS.OTLPEndpoint, "otlp-endpoint", cfg.XDS.OTLPEndpoint, "host:port of a collector that takes OTLP by gRPC, for traces and logs; `nodevoy bootstrap` needs it, too")
}

// logFileFlags say where the access log is, also to who prepares its directory.
func logFileFlags(f *pflag.FlagSet, cfg *agent.Config) {
	f.StringVar(&cfg.XDS.AccessLogFile, "access-log-file", cfg.XDS.AccessLogFile, "file for the access log instead of Envoy's standard output, in a directory that Envoy's user can write to")
}

// modelFlags say which pods and Services take part.
func modelFlags(f *pflag.FlagSet, cfg *agent.Config) {
	m := &cfg.Model
	f.StringSliceVar(&m.ExcludedNamespaces, "excluded-namespaces", m.ExcludedNamespaces, "namespaces whose Services and pods are never touched")
	f.TextVar(&m.NamespaceSelector, "namespace-selector", m.NamespaceSelector, "label selector of the namespaces whose pods are opted in")
	f.StringSliceVar(&m.PodOptInNamespaces, "pod-opt-in-namespaces", m.PodOptInNamespaces, "in host mode, namespaces in which a pod's own label may enroll it; * for all. In pod mode it may in every namespace")
	f.Var(networksVar(&m.ExcludedEndpoints), "excluded-endpoints", "in host mode, networks whose addresses Envoy doesn't call, such as that of the nodes: Services with a backend there are left to kube-proxy")
	f.Var(portsVar(&m.OpaquePorts), "opaque-ports", "ports taken for plain TCP when nothing declares their protocol")
	f.TextVar(&m.Undeclared, "undeclared", m.Undeclared, "which other ports that declare no protocol have it detected: those where HTTP is likely (likely), all (detect), or none (tcp)")
}

// value is a flag of a type that pflag does not know, or not in this form.
type value[T any] struct {
	p    *T
	name string
	// write gives the text that read reads.
	write func(T) string
	read  func(string) (T, error)
}

func (v value[T]) String() string { return v.write(*v.p) }
func (v value[T]) Type() string   { return v.name }
func (v value[T]) Set(s string) error {
	read, err := v.read(s)
	if err == nil {
		*v.p = read
	}
	return err
}

// addrVar is an address of one family.
func addrVar(p *netip.Addr, v4 bool) value[netip.Addr] {
	return value[netip.Addr]{p, "address", netip.Addr.String, func(s string) (netip.Addr, error) {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return a, fmt.Errorf("%q is no IP address", s)
		}
		if a.Is4() != v4 {
			return a, fmt.Errorf("%s is of the other address family", s)
		}
		return a, nil
	}}
}

// portVar is a TCP port.
func portVar(p *uint16) value[uint16] { return value[uint16]{p, "port", writePort, parsePort} }

// portsVar is a list of TCP ports.
func portsVar(p *[]uint16) value[[]uint16] { return listVar(p, "ports", writePort, parsePort) }

// networksVar is a list of networks.
func networksVar(p *[]netip.Prefix) value[[]netip.Prefix] {
	return listVar(p, "networks", netip.Prefix.String, func(s string) (netip.Prefix, error) {
		network, err := netip.ParsePrefix(s)
		if err != nil || network != network.Masked() {
			return network, fmt.Errorf("%q is no network, such as 10.0.0.0/8", s)
		}
		return network, nil
	})
}

// listVar is a list of values with commas between them.
func listVar[T any](p *[]T, name string, write func(T) string, read func(string) (T, error)) value[[]T] {
	join := func(list []T) string {
		words := make([]string, len(list))
		for i, one := range list {
			words[i] = write(one)
		}
		return strings.Join(words, ",")
	}
	return value[[]T]{p, name, join, func(s string) (list []T, err error) {
		for word := range strings.SplitSeq(s, ",") {
			if word = strings.TrimSpace(word); word == "" {
				continue
			}
			one, err := read(word)
			if err != nil {
				return nil, err
			}
			list = append(list, one)
		}
		return list, nil
	}}
}

func writePort(n uint16) string { return strconv.Itoa(int(n)) }

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port from 1 to 65535", s)
	}
	return uint16(n), nil
}

// bytesVar is a size in bytes, written as Kubernetes does.
func bytesVar(p *int64) value[int64] {
	write := func(n int64) string { return resource.NewQuantity(n, resource.BinarySI).String() }
	return value[int64]{p, "size", write, func(s string) (int64, error) {
		q, err := resource.ParseQuantity(s)
		if err != nil || q.Sign() < 0 {
			return 0, fmt.Errorf("%q is no size such as 256Mi", s)
		}
		return q.Value(), nil
	}}
}

// hexVar is a number, best written in hexadecimal.
func hexVar(p *uint32) value[uint32] {
	write := func(n uint32) string { return fmt.Sprintf("%#x", n) }
	return value[uint32]{p, "bits", write, func(s string) (uint32, error) {
		n, err := strconv.ParseUint(s, 0, 32)
		if err != nil {
			return 0, fmt.Errorf("%q is no 32-bit number", s)
		}
		return uint32(n), nil
	}}
}
