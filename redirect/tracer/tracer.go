// SPDX-License-Identifier: Apache-2.0

// Package tracer follows a packet through the rules of a plan as the kernel would: to
// hold a truth table against the rules without a kernel, and to say which rule takes a
// connection. It is pure.
package tracer

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// Packet is a packet of TCP, unless it says otherwise, that arrives at the node
// or leaves a pod.
type Packet struct {
	From netip.Addr
	To   netip.AddrPort
	// Pod is the namespace/name of the pod it leaves, of a plan of PodMode; empty
	// for a packet that arrives at the node.
	Pod string
	// In is the interface it comes in by; "lo" for what the node sends itself.
	// Out is the one by which it leaves a pod.
	In, Out string
	// Mark is what its sender put on it.
	Mark uint32
	// UDP is set for a packet of that protocol.
	UDP bool
	// Established is set for a packet of a connection that Envoy holds already; else
	// the packet is the first of its connection.
	Established bool
	// Open is how many other connections its sender has that the plan counts, and
	// Full whether it lately had too many; Lately is how many it has made within a
	// second.
	Open, Lately int
	Full         bool
}

// Verdict is what a plan does to a packet.
type Verdict struct {
	// Listener takes the packet; the zero value when it is left as it was.
	Listener netip.AddrPort
	// Rejected is set when the plan refuses the packet.
	Rejected bool
	// Steps are the rules it matched, and By is the one of them that gives it to the
	// listener.
	Steps []Step
	By    Step
}

// Step is a rule that a packet matched. Jump is set for one in a chain of the kernel's,
// which leads to ours.
type Step struct {
	Table, Chain string
	plan.Rule
	Jump bool
}

// String is the rule with its chain and its reason.
func (s Step) String() string {
	return fmt.Sprintf("%s %s: %s (%s)", s.Table, s.Chain, s.Spec, s.Reason)
}

// Trace follows a packet through the plan's rules as the kernel would. It knows
// the matches and targets that plans use, and nothing of other people's rules.
func Trace(p *plan.Plan, packet Packet) (Verdict, error) {
	f := family.Of(packet.To.Addr())
	if packet.Pod != "" {
		for i := range p.Pods {
			if fp, ok := p.Pods[i].Family(f); ok && p.Pods[i].Name() == packet.Pod {
				t := &tracer{plan: &fp, packet: packet, mark: uint64(packet.Mark)}
				err := t.leave()
				return t.verdict, err
			}
		}
		return Verdict{}, nil
	}
	for i := range p.Families {
		if p.Families[i].Family == f {
			t := &tracer{plan: &p.Families[i], packet: packet, mark: uint64(packet.Mark)}
			err := t.run()
			return t.verdict, err
		}
	}
	return Verdict{}, nil
}

// leave follows a packet that a pod sends, through the pod's own namespace.
func (t *tracer) leave() error {
	if t.packet.Established {
		// The nat chains see first packets only; conntrack does the rest.
		t.verdict.Listener = netip.AddrPortFrom(t.plan.Address, 0)
		return nil
	}
	for _, j := range t.plan.JumpsOf("nat") {
		if _, err := t.rule(j.Table, j.Parent, j.Rule); err != nil {
			return err
		}
	}
	return nil
}

// tracer is a packet on its way.
type tracer struct {
	plan    *plan.FamilyPlan
	packet  Packet
	verdict Verdict
	mark    uint64
	dnatted bool
	// added are the sets that rules have added the sender to.
	added []string
}

func (t *tracer) run() error {
	if t.packet.Established && t.plan.Routing == nil {
		// conntrack rewrites it; the nat chains see first packets only.
		t.packet.To, t.dnatted = netip.AddrPortFrom(t.plan.Address, 0), true
	}
	for _, h := range plan.Hooks() {
		local := t.packet.To.Addr() == t.plan.Address || t.mark != 0
		if (h.Parent == "INPUT" && !local) || h.Parent == "OUTPUT" || h.Parent == "" || (h.Table == "nat" && t.packet.Established) {
			continue
		}
		for _, j := range t.plan.JumpsOf(h.Table) {
			if j.Parent != h.Parent {
				continue
			}
			if _, err := t.rule(j.Table, j.Parent, j.Rule); err != nil {
				return err
			}
		}
	}
	return nil
}

// rule does what a rule says to a packet that it matches. Done means that the
// packet leaves the table, or with RETURN the chain.
func (t *tracer) rule(table, chain string, r plan.Rule) (done bool, err error) {
	words := strings.Fields(r.Spec)
	at := slices.Index(words, "-j")
	if at < 0 {
		return false, fmt.Errorf("rule without target: %s", r.Spec)
	}
	if matched, err := t.matches(words[:at]); !matched || err != nil {
		return false, err
	}
	step := Step{table, chain, r, !strings.HasPrefix(chain, plan.ChainPrefix)}
	t.verdict.Steps = append(t.verdict.Steps, step)
	target, options := words[at+1], words[at+2:]
	if strings.HasPrefix(target, plan.ChainPrefix) {
		return t.chain(table, target)
	}
	before := t.verdict.Listener
	done, err = t.target(target, options)
	if t.verdict.Listener != before {
		t.verdict.By = step
	}
	return done, err
}

func (t *tracer) chain(table, name string) (bool, error) {
	for _, c := range t.plan.ChainsOf(table) {
		if c.Name != name {
			continue
		}
		for _, r := range c.Rules {
			done, err := t.rule(table, name, r)
			if done || err != nil {
				return done, err
			}
		}
	}
	return false, nil
}

func (t *tracer) target(name string, options []string) (done bool, err error) {
	option := func(word string) string {
		if i := slices.Index(options, word); i >= 0 && i+1 < len(options) {
			return options[i+1]
		}
		return ""
	}
	switch name {
	case "CT":
		return false, nil
	case "SET":
		t.added = append(t.added, option("--add-set"))
		return false, nil
	case "MARK":
		t.mark, err = value(option("--set-xmark"))
		return false, err
	case "RETURN", "ACCEPT":
		return true, nil
	case "REJECT", "DROP":
		t.verdict.Rejected = true
		return true, nil
	case "REDIRECT":
		port, err := strconv.ParseUint(option("--to-ports"), 10, 16)
		t.verdict.Listener = netip.AddrPortFrom(t.plan.Address, uint16(port))
		return true, err
	case "DNAT":
		t.packet.To, err = netip.ParseAddrPort(option("--to-destination"))
		t.verdict.Listener, t.dnatted = t.packet.To, true
		return true, err
	case "TPROXY":
		port, err := strconv.ParseUint(option("--on-port"), 10, 16)
		if err != nil {
			return true, err
		}
		t.verdict.Listener = netip.AddrPortFrom(t.plan.Address, uint16(port))
		t.mark, err = value(option("--tproxy-mark"))
		return true, err
	}
	return false, fmt.Errorf("unknown target %s", name)
}

// matches says whether the packet meets every match of a rule.
func (t *tracer) matches(words []string) (bool, error) {
	for len(words) > 0 {
		not := words[0] == "!"
		if not {
			words = words[1:]
		}
		met, used, err := t.match(words)
		if err != nil || met == not {
			return false, err
		}
		words = words[used:]
	}
	return true, nil
}

// match looks at one match and says how many words it has.
func (t *tracer) match(words []string) (met bool, used int, err error) {
	var arg string
	if len(words) > 1 {
		arg = words[1]
	}
	switch words[0] {
	case "-m":
		// "-m set ! --match-set" has its negation after the name.
		if slices.Contains([]string{"set", "tcp", "socket", "mark", "conntrack", "connlimit", "hashlimit"}, arg) {
			return true, 2, nil
		}
	case "-p":
		return arg == "tcp" && !t.packet.UDP, 2, nil
	case "-i":
		return t.packet.In == arg, 2, nil
	case "-o":
		return t.packet.Out == arg, 2, nil
	case "-d":
		prefix, err := netip.ParsePrefix(arg)
		return prefix.Contains(t.packet.To.Addr()), 2, err
	case "--tcp-flags":
		return !t.packet.Established, 3, nil
	case "--transparent":
		return t.packet.Established, 1, nil
	case "--ctstate":
		return t.dnatted, 2, nil
	case "--mark":
		bits, err := value(arg)
		return t.mark&bits == bits, 2, err
	case "--connlimit-above":
		most, err := strconv.Atoi(arg)
		return t.packet.Open+1 > most, 2, err
	case "--connlimit-mask":
		return arg == strconv.Itoa(t.packet.From.BitLen()), 2, nil
	case "--connlimit-saddr":
		return true, 1, nil
	case "--hashlimit-above":
		var most int
		_, err := fmt.Sscanf(arg, "%d/sec", &most)
		return t.packet.Lately+1 > most, 2, err
	case "--hashlimit-mode":
		return arg == "srcip", 2, nil
	case "--hashlimit-burst", "--hashlimit-name":
		return true, 2, nil
	case "--match-set":
		return t.member(arg, words[2]), 3, nil
	}
	return false, 0, fmt.Errorf("unknown match %s", strings.Join(words, " "))
}

func (t *tracer) member(set, direction string) bool {
	if set == plan.FullSet(t.plan.Family) {
		return t.packet.Full || slices.Contains(t.added, set)
	}
	look := netip.AddrPortFrom(t.packet.From, 0)
	if direction == "dst,dst" {
		look = t.packet.To
	}
	for _, s := range t.plan.Sets() {
		if s.Name == set {
			_, found := slices.BinarySearchFunc(s.Members, look, netip.AddrPort.Compare)
			return found
		}
	}
	return false
}

// value is the part of "value/mask" before the slash.
func value(s string) (uint64, error) {
	v, _, _ := strings.Cut(s, "/")
	return strconv.ParseUint(v, 0, 32)
}
