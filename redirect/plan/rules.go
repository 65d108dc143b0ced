// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
)

// syn matches the first packet of a connection, as iptables-save writes --syn.
const syn = "-m tcp --tcp-flags FIN,SYN,RST,ACK SYN"

// notSyn matches all the others.
const notSyn = "-m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN"

// ruleBook writes the rules of one family. Each is in the form and the order
// of arguments iptables-save prints, so that what is read back can be compared
// as text.
type ruleBook struct {
	cfg    Config
	family family.Family
}

// dnat rewrites the destination of a connection's first packet; conntrack does
// the rest of the connection, so neither the expiry of the pods nor a frontend
// that leaves its set touches connections that exist.
func (b ruleBook) dnat() ([]Chain, []Jump) {
	var chains []Chain
	var jumps []Jump
	nat := Chain{Table: "nat", Name: ChainPrerouting}
	nat.rule(fmt.Sprintf("-m set ! --match-set %s src -j RETURN", PodsSet(b.family)),
		"only what enrolled pods send; the node's own traffic never has such a source, nor has Envoy's")
	if b.cfg.counts() {
		count, jump := b.countFirst()
		chains, jumps = append(chains, count), append(jumps, jump)
		b.leaveFull(&nat)
	}
	for _, c := range model.Classes() {
		to := netip.AddrPortFrom(b.cfg.Address(b.family), b.cfg.Ports.Of(c))
		nat.rule(fmt.Sprintf("-p tcp -m set --match-set %s dst,dst -j DNAT --to-destination %s", frontendSet(c, b.family), to),
			"class "+c.String()+" to its listener; not REDIRECT, which drops on interfaces without an address")
	}
	own := "-m socket "
	if b.cfg.Unguarded {
		own = ""
	}
	input := b.input("-p tcp "+own+"-m conntrack --ctstate DNAT -j ACCEPT",
		"redirected connections, also where the host's INPUT drops, and for as long as they live; kube-proxy, too, may lead here, and what listens on all addresses is no socket to this match")
	return append(chains, nat, input), append(jumps, Jump{"nat", "PREROUTING", ChainPrerouting, Rule{
		"-p tcp -j " + ChainPrerouting,
		"first, because kube-proxy's KUBE-SERVICES would turn the frontend into a backend",
	}}, Jump{"filter", "INPUT", chainInput, Rule{
		fmt.Sprintf("-d %s -j %s", b.listener(), chainInput),
		"first, before a host firewall's own rules; it sees only what goes to the listeners",
	}})
}

// countFirst counts, for dnat, in mangle, before nat. In a legacy nat table, each
// change of anybody's, such as kube-proxy's, would begin the count anew.
func (b ruleBook) countFirst() (Chain, Jump) {
	c := Chain{Table: "mangle", Name: ChainPrerouting}
	c.rule(fmt.Sprintf("-m set ! --match-set %s src -j RETURN", PodsSet(b.family)), "only what enrolled pods send")
	b.count(&c)
	return c, Jump{"mangle", "PREROUTING", ChainPrerouting, Rule{
		fmt.Sprintf("-p tcp %s -j %s", syn, ChainPrerouting),
		"first, before anybody's rule accepts the packet; only connections that begin are counted",
	}}
}

// count adds the rules that note a pod which has its maximum of connections, or of
// new ones in a second. A connection is counted until conntrack knows it as closed, or
// no more.
func (b ruleBook) count(c *Chain) {
	var none strings.Builder
	for _, class := range model.Classes() {
		fmt.Fprintf(&none, " -m set ! --match-set %s dst,dst", frontendSet(class, b.family))
	}
	c.rule("-p tcp"+none.String()+" -j RETURN", "connections that are not redirected don't count")
	full := FullSet(b.family)
	if b.cfg.Limited() {
		c.rule(fmt.Sprintf("-p tcp -m set ! --match-set %[1]s src -m connlimit --connlimit-above %[2]d --connlimit-mask %[3]d --connlimit-saddr -j SET --add-set %[1]s src",
			full, b.cfg.MaxConnections, family.Pick(b.family, 32, 128)),
			"one rule for all classes, as each has a count of its own; at the limit the pod is not counted for a while, since the count takes the longer the more it has")
	}
	if b.cfg.RateLimited() {
		rate := kernelRate(b.cfg.MaxConnectionRate)
		c.rule(fmt.Sprintf("-p tcp -m set ! --match-set %[1]s src -m hashlimit --hashlimit-above %[2]d/sec --hashlimit-burst %[3]d --hashlimit-mode srcip --hashlimit-name %[1]s-%[2]d -j SET --add-set %[1]s src",
			full, rate, max(rate, minBurst)),
			"the rate is in the name, as the kernel keeps that of a name which is in use")
	}
}

// minBurst is how many connections a pod may make at once, however few in a second. It
// is not 5, which iptables-save leaves out.
const minBurst = 10

// kernelRate is a rate, per second, as the kernel keeps it and iptables-save prints it:
// it is stored as a whole number of millionths of a second between two packets (struct
// hashlimit_cfg3, XT_HASHLIMIT_SCALE_v2).
func kernelRate(rate uint32) uint32 { return 1_000_000 / (1_000_000 / rate) }

// leaveFull leaves alone what count has found to be too much.
func (b ruleBook) leaveFull(c *Chain) {
	c.rule(fmt.Sprintf("-m set --match-set %s src -j RETURN", FullSet(b.family)),
		"a pod at its limit: kube-proxy serves what is above it, so that no pod uses up Envoy")
}

// tproxy leaves packets as they are and gives them to Envoy's transparent
// socket. They bypass conntrack, so that no nat hook of any kube-proxy, of
// whatever priority, can translate them: TPROXY alone doesn't prevent it.
//
// A limit that dnat does not have: a socket that Envoy closed keeps its packets for
// the minute of TIME_WAIT. Once pods are disengaged, a new connection of the very
// same ports finds it in its way until then.
func (b ruleBook) tproxy() ([]Chain, []Jump) {
	bits := fmt.Sprintf("0x%x/0x%x", b.cfg.Mark, b.cfg.Mark)
	divert := Chain{Table: "raw", Name: chainDivert}
	divert.rule("-j MARK --set-xmark "+bits, "the routing rule sends marked packets to this host's sockets")
	divert.rule("-j CT --notrack", "no conntrack entry, so no nat; there is none to keep up")

	raw := Chain{Table: "raw", Name: ChainPrerouting}
	raw.rule("-p tcp "+notSyn+" -m socket --transparent -j "+chainDivert,
		"what belongs to a connection Envoy holds, whatever became of its pod and frontend in the sets; a SYN is TPROXY's, which knows about TIME_WAIT")
	raw.rule(fmt.Sprintf("-m set ! --match-set %s src -j RETURN", PodsSet(b.family)), "only what enrolled pods send")
	mangle := Chain{Table: "mangle", Name: ChainPrerouting}
	mangle.rule(fmt.Sprintf("-m set ! --match-set %s src -j RETURN", PodsSet(b.family)), "only what enrolled pods send")
	for _, c := range model.Classes() {
		match := fmt.Sprintf("-p tcp %s -m set --match-set %s dst,dst", syn, frontendSet(c, b.family))
		raw.rule(match+" -j CT --notrack",
			"class "+c.String()+": new connections only, those that exist go on through kube-proxy's conntrack entry")
		mangle.rule(fmt.Sprintf("%s -j TPROXY --on-port %d --on-ip %s --tproxy-mark %s", match, b.cfg.Ports.Of(c), b.cfg.Address(b.family), bits),
			"class "+c.String()+" to its listener")
	}
	output := Chain{Table: "raw", Name: ChainOutput}
	output.rule("-p tcp -m addrtype ! --src-type LOCAL -j CT --notrack",
		"Envoy's replies, which alone come from an address that is not the host's; else nat would see half a connection, and masquerade it")

	input := b.input("-p tcp -m mark --mark "+bits+" -j ACCEPT", "redirected packets, also where the host's INPUT drops")
	first := "first, before anybody's rule accepts or tracks the packet"
	return []Chain{divert, raw, output, mangle, input}, []Jump{
		{"raw", "PREROUTING", ChainPrerouting, Rule{"-p tcp -j " + ChainPrerouting, first}},
		{"raw", "OUTPUT", ChainOutput, Rule{"-p tcp -j " + ChainOutput, first}},
		{"mangle", "PREROUTING", ChainPrerouting, Rule{"-p tcp -j " + ChainPrerouting, first}},
		{"filter", "INPUT", chainInput, Rule{"-j " + chainInput, "first, before a host firewall's own rules"}},
	}
}

// pod redirects what a pod sends, in the pod's own network namespace.
// Conntrack does the rest of a connection, as for dnat. REDIRECT fits here, as
// lo always has an address.
func (b ruleBook) pod() ([]Chain, []Jump) {
	loopback := family.Pick(b.family, "127.0.0.0/8", "::1/128")
	linkLocal := family.Pick(b.family, "169.254.0.0/16", "fe80::/10")
	nat := Chain{Table: "nat", Name: ChainOutput}
	nat.rule("-p tcp "+notSyn+" -j RETURN",
		"a connection from before these rules: without any the pod's kernel tracked none, and now takes its next packet for a first one")
	nat.rule(fmt.Sprintf("-m mark --mark 0x%x/0x%x -j RETURN", b.cfg.Mark, b.cfg.Mark),
		"Envoy's own connections to backends: the pod's address is theirs too, and they would come back to it")
	nat.rule("-o lo -j RETURN", "the pod to itself, whatever address of its own it dials")
	nat.rule(fmt.Sprintf("-d %s -j RETURN", loopback), "never loopback, whatever a set has")
	nat.rule(fmt.Sprintf("-d %s -j RETURN", linkLocal), "never link-local, where cloud metadata and node services are")
	nat.rule(fmt.Sprintf("-m set ! --match-set %s src -j RETURN", PodsSet(b.family)),
		"only what the pod sends from its own addresses, and only while Envoy works")
	if b.cfg.counts() {
		b.count(&nat)
		b.leaveFull(&nat)
	}
	for _, c := range model.Classes() {
		nat.rule(fmt.Sprintf("-p tcp -m set --match-set %s dst,dst -j REDIRECT --to-ports %d", frontendSet(c, b.family), b.cfg.Ports.Of(c)),
			"class "+c.String()+" to its listener, in this namespace")
	}
	return []Chain{nat}, []Jump{{"nat", "OUTPUT", ChainOutput, Rule{
		"-p tcp -j " + ChainOutput,
		"first; it is the only one, since a pod with rules of its own here is not redirected",
	}}}
}

// DrainChain is all that stays in a pod that is no longer redirected but runs. The
// kernel tracks connections of a namespace as long as some rule there wants it;
// without, those that were redirected would be cut off.
func DrainChain() Chain {
	c := Chain{Table: "nat", Name: ChainOutput}
	c.rule("-m conntrack --ctstate NEW -j RETURN", "nothing jumps here; it keeps the tracking of connections on")
	return c
}

// input is the chain that lets redirected connections through to Envoy, and
// nobody else.
func (b ruleBook) input(redirected, reason string) Chain {
	c := Chain{Table: "filter", Name: chainInput}
	c.rule(redirected, reason)
	c.rule(fmt.Sprintf("-d %s -i lo -j ACCEPT", b.listener()), "the agent's own probe of the listeners")
	c.rule(fmt.Sprintf("-d %s -p tcp -j REJECT --reject-with tcp-reset", b.listener()),
		"the listeners are for redirected connections: pods and neighbours can't dial them")
	c.rule(fmt.Sprintf("-d %s -j DROP", b.listener()), "nothing else is at that address")
	return c
}

func (b ruleBook) listener() netip.Prefix {
	a := b.cfg.Address(b.family)
	return netip.PrefixFrom(a, a.BitLen())
}

func (c *Chain) rule(spec, reason string) { c.Rules = append(c.Rules, Rule{spec, reason}) }
