// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/ebpf"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
)

// proxyMode looks for what each mode of kube-proxy leaves in the kernel.
func (p *prober) proxyMode(ctx context.Context) {
	for _, f := range family.All() {
		if names, err := p.info.NFTables(f); p.judge(err) == nil && slices.Contains(names, "kube-proxy") {
			p.found.ProxyMode = "nftables"
			p.note("kube-proxy is in nftables mode: nf_tables has its table")
			return
		}
	}
	if names, err := p.kernel.Sets.Names(); p.judge(err) == nil && slices.Contains(names, "KUBE-CLUSTER-IP") {
		p.found.ProxyMode = "ipvs"
		p.note("kube-proxy is in ipvs mode: its sets are there")
		return
	}
	for _, t := range p.kernel.Tables {
		if _, err := t.List(ctx, "nat", "KUBE-SERVICES"); iptables.Present(err) {
			p.found.ProxyMode = "iptables"
			p.note("kube-proxy is in iptables mode: chain KUBE-SERVICES is there")
			return
		}
	}
	if p.found.ProxyMode = p.info.ProxyMode(ctx); p.found.ProxyMode != "" {
		p.note("kube-proxy says it is in %s mode", p.found.ProxyMode)
		return
	}
	p.note("there is no sign of a kube-proxy")
}

// bridge looks whether the host's iptables sees frames between pods of a bridge.
func (p *prober) bridge() {
	for _, f := range family.All() {
		if port, err := p.kernel.Network.Bridged(f); err == nil && port != "" {
			p.note("what passes between pods of a bridge goes through the host's iptables too (br_netfilter, interface %s)", port)
			return
		}
	}
}

// podPrograms looks for eBPF programs on the host's side of pods' interfaces,
// which see packets before the host's iptables, and may take them past it.
func (p *prober) podPrograms() {
	programs, err := p.info.PodPrograms()
	if err != nil {
		p.note("not known whether there are eBPF programs on pods' interfaces: %v", err)
	}
	p.onPods = list(programs)
	switch {
	case len(programs) > 0:
		p.note("there are eBPF programs on pods' interfaces: %s", p.onPods)
		p.found.Untracked = fmt.Sprintf("eBPF programs on pods' interfaces (%s) may take connections past the kernel's conntrack, as those of CNIs do", p.onPods)
	case err == nil:
		p.note("there are no eBPF programs on pods' interfaces")
	}
}

// connectPrograms looks for load balancing at the socket: a connection to a
// Service is one to a backend before any rule can see it.
func (p *prober) connectPrograms() {
	programs, err := p.info.ConnectPrograms()
	switch {
	case err != nil:
		p.note("not known whether there is load balancing at the socket: %v", err)
	case len(programs) == 0:
		p.note("there is no load balancing at the socket: no eBPF program acts on connect")
	default:
		p.found.Untracked = fmt.Sprintf("eBPF programs act on connect (%s): if they choose backends, nothing else sees which Service was called", list(programs))
		p.note("warning: eBPF programs act on connect (%s): if they choose backends for pods too, no redirection ever sees a Service's address;%s", list(programs), advice(programs))
	}
}

// advice says how to keep load balancing at the socket out of pods.
func advice(programs []ebpf.Program) string {
	has := func(prefix string) bool {
		return slices.ContainsFunc(programs, func(p ebpf.Program) bool { return strings.HasPrefix(p.Name, prefix) })
	}
	cilium, calico := " Cilium needs socketLB.hostNamespaceOnly=true", " Calico needs bpfConnectTimeLoadBalancing: Disabled"
	switch {
	case has("cil_"):
		return cilium
	case has("cali"):
		return calico
	}
	return cilium + "," + calico
}

// shown bounds how many programs are named.
const shown = 3

// list names the first of some programs, and counts the others.
func list(programs []ebpf.Program) string {
	var names []string
	for _, p := range programs[:min(shown, len(programs))] {
		names = append(names, p.String())
	}
	text := strings.Join(names, ", ")
	if more := len(programs) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
