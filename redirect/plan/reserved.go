// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Every name and number nodevoy takes on a node. Whatever it makes there is
// derived from this file, and so is its removal.
const (
	// ChainPrefix begins the name of each of our chains.
	ChainPrefix = "NODEVOY-"
	// ChainPrerouting is in nat and mangle (dnat) or raw and mangle (tproxy); ChainOutput
	// in raw (tproxy), or in the nat table of a pod's own network namespace; the
	// others are where Hooks lists them.
	ChainPrerouting = ChainPrefix + "PREROUTING"
	ChainOutput     = ChainPrefix + "OUTPUT"
	chainInput      = ChainPrefix + "INPUT"
	// chainDivert is called, never jumped to from a chain of the kernel's.
	chainDivert = ChainPrefix + "DIVERT"

	// SetPrefix begins the name of each of our ipsets; the family's digit ends it.
	SetPrefix = "nodevoy-"
	setPods   = SetPrefix + "pods"
	// setFull has the pods that have as many connections as may be redirected.
	setFull = SetPrefix + "full"

	// The loopback interface carries the listeners' addresses. The v4 one is
	// link-local as NodeLocal DNSCache's 169.254.20.10 is, and away from it and
	// from cloud metadata's 169.254.169.254.
	listenerAddress4 = "169.254.64.15"
	listenerAddress6 = "fd6e:6f64:6576:6f79::15"

	// In pod mode the ports, and those of other generations, are taken from each
	// enrolled pod, so they are ones that no known software listens on: amid 23547 to
	// 23999, which IANA has assigned to nobody; below Kubernetes' node ports, from 30000,
	// and the ports that Linux gives to clients, from 32768; away from meshes' (Istio's
	// 15000 to 15090, Linkerd's 4140 to 4191).
	portTCP    = 23721
	portHTTP   = 23722
	portDetect = 23723

	// defaultMark is one bit, free of Cilium's 0xF00, Kubernetes' 0xC000, AWS's
	// 0x80 and Calico's 0xFFFF0000. It is always written and compared masked.
	defaultMark = 0x10
	// defaultTable is both the routing table and the priority of the rule that
	// leads to it: after the local table's 0, before the main table's 32766.
	defaultTable = 1064

	// defaultMaxConnections is about one for each 6 MiB of Envoy's default heap bound: a
	// pod's requests then fill half of it where each connection has as many as it may,
	// and the kernel's buffers of eight pods fit into a container's limit of 1 GiB.
	defaultMaxConnections = 128
	maxMaxConnections     = 1_000_000
	maxMaxConnectionRate  = 100_000
)

// Hook is one chain of ours and the kernel's chain that jumps to it; Parent is
// empty for a chain that only our own chains call.
type Hook struct {
	Table, Chain, Parent string
	// InPod is set for a chain in the network namespaces of enrolled pods.
	InPod bool
}

// Hooks lists every chain of every mechanism, tables in the order the kernel
// runs them.
func Hooks() []Hook {
	return []Hook{
		{Table: "raw", Chain: chainDivert},
		{Table: "raw", Chain: ChainPrerouting, Parent: "PREROUTING"},
		{Table: "raw", Chain: ChainOutput, Parent: "OUTPUT"},
		{Table: "mangle", Chain: ChainPrerouting, Parent: "PREROUTING"},
		{Table: "nat", Chain: ChainPrerouting, Parent: "PREROUTING"},
		{Table: "nat", Chain: ChainOutput, Parent: "OUTPUT", InPod: true},
		{Table: "filter", Chain: chainInput, Parent: "INPUT"},
	}
}

// Tables are those of Hooks, each once.
func Tables() []string {
	var names []string
	for _, h := range Hooks() {
		if !slices.Contains(names, h.Table) {
			names = append(names, h.Table)
		}
	}
	return names
}

// PodsSet names the set of enrolled pods' addresses.
func PodsSet(f family.Family) string { return setPods + f.Digit() }

// FullSet names the set of addresses with as many connections as may be redirected.
func FullSet(f family.Family) string { return setFull + f.Digit() }

func frontendSet(c model.Class, f family.Family) string { return SetPrefix + c.String() + f.Digit() }

// FrontendSets are the sets of frontends, one for each class.
func FrontendSets(f family.Family) []netfilter.SetSpec {
	var sets []netfilter.SetSpec
	for _, c := range model.Classes() {
		sets = append(sets, netfilter.SetSpec{Name: frontendSet(c, f), Type: netfilter.HashIPPort, Family: f, MaxElements: MaxMembers})
	}
	return sets
}

// ScratchSet names the set that is filled beside another, to be swapped for it.
func ScratchSet(name string) string { return name + "-new" }

// SetNames are the names of every set of one family, scratch sets included.
func SetNames(f family.Family) []string {
	names := []string{PodsSet(f), FullSet(f)}
	for _, c := range model.Classes() {
		names = append(names, frontendSet(c, f))
	}
	for _, n := range names[:len(names):len(names)] {
		names = append(names, ScratchSet(n))
	}
	return append(names, ProbeSet(f))
}

// ProbeSet is made and removed at once, to see whether sets can be made.
func ProbeSet(f family.Family) string { return SetPrefix + "probe" + f.Digit() }
