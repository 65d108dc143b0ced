// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/nodevoy/nodevoy/test/lab"
)

// variant is a kind of node, and a mode, that redirection has to work in.
type variant struct {
	name string
	lab.Options
	// mechanism is the one that the agent is to find right; pod mode has but one
	// way, without a name.
	mechanism string
}

// hostBridged is kube-proxy with iptables and pods on a bridge.
func hostBridged() variant {
	on := true
	return variant{"host, dnat on a bridge", lab.Options{Mode: lab.Host, BridgeNetfilter: &on, IPTables: "nft"}, "dnat"}
}

// hostRouted is a node with unnumbered veths and kube-proxy in nftables mode,
// where host mode has to use tproxy.
func hostRouted() variant {
	return variant{"host, tproxy on unnumbered veths", lab.Options{Mode: lab.Host, Veth: lab.Routed, Proxy: lab.NFTables}, "tproxy"}
}

// podBridged is hostBridged in pod mode.
func podBridged() variant {
	v := hostBridged()
	v.name, v.Mode, v.mechanism = "pod, on a bridge", lab.Pods, ""
	return v
}

// podRouted is hostRouted in pod mode.
func podRouted() variant {
	v := hostRouted()
	v.name, v.Mode, v.mechanism = "pod, on unnumbered veths", lab.Pods, ""
	return v
}

// podLegacy is a node whose iptables is the old one, in pod mode.
func podLegacy() variant {
	v := podBridged()
	v.name, v.IPTables = "pod, on a bridge, legacy", "legacy"
	return v
}

// podAlone is pod mode on a node that does nothing about cluster IPs.
func podAlone() variant {
	return variant{"pod, without kube-proxy", lab.Options{Mode: lab.Pods, Veth: lab.Routed, Proxy: lab.NoProxy}, ""}
}

// hosts are all kinds of node, in host mode.
func hosts() []variant {
	on := true
	return []variant{
		hostBridged(),
		{"host, dnat on a bridge, legacy", lab.Options{Mode: lab.Host, BridgeNetfilter: &on, IPTables: "legacy"}, "dnat"},
		{"host, dnat on unnumbered veths", lab.Options{Mode: lab.Host, Veth: lab.Routed, IPTables: "nft"}, "dnat"},
		hostRouted(),
	}
}

// modes is each mode once, for what doesn't depend on the kind of node.
func modes() []variant { return []variant{hostBridged(), podBridged()} }

// each runs a test on each variant, in a lab without agent and Envoy.
func each(t *testing.T, variants []variant, test func(t *testing.T, w *fixture)) {
	t.Helper()
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) { test(t, newFixture(t, v)) })
	}
}
