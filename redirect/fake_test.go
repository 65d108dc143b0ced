// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/route"
)

// bench is a whole fake kernel, with a clock that only tests move.
type bench struct {
	t       *testing.T
	now     time.Time
	sets    *ipset.Fake
	network *route.Fake
	tables  []*iptables.Fake
	// hook, when set, is asked before every Restore; an error fails it.
	hook func(t *iptables.Fake, text string) error
	cfg  Config
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, now: time.Unix(1e9, 0), network: route.NewFake(), cfg: Default()}
	b.cfg.Mechanism, b.cfg.Backend = DNAT, iptables.NFT
	b.sets = ipset.NewFake(func() time.Time { return b.now })
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		for _, f := range family.All() {
			fake := iptables.NewFake(backend, f)
			fake.SetExists = b.sets.Exists
			b.tables = append(b.tables, fake)
		}
	}
	b.sets.References = func(set string) int {
		n := 0
		for _, fake := range b.tables {
			n += fake.References(set)
		}
		return n
	}
	return b
}

// hooked is a Fake whose writes the bench hears of first.
type hooked struct {
	*iptables.Fake
	bench *bench
}

func (h hooked) Restore(ctx context.Context, text string) error {
	if h.bench.hook != nil {
		if err := h.bench.hook(h.Fake, text); err != nil {
			return err
		}
	}
	return h.Fake.Restore(ctx, text)
}

func (b *bench) kernel() Kernel {
	k := Kernel{Sets: b.sets, Urgent: b.sets, Network: b.network}
	for _, fake := range b.tables {
		k.Tables = append(k.Tables, hooked{fake, b})
	}
	return k
}

// agent is a fresh Applier, as after a restart.
func (b *bench) agent() *Applier { return NewFor(b.cfg, b.kernel(), zap.NewNop()) }

func (b *bench) plan(n *model.Node) *Plan { return Compile(n, b.cfg) }

// applied is an agent that has applied the plan of a node.
func (b *bench) applied(n *model.Node) *Applier {
	b.t.Helper()
	a := b.agent()
	b.must(a.Apply(b.t.Context(), b.plan(n)))
	return a
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// holds checks the members of a set, written as ipset does.
func (b *bench) holds(set string, want ...string) {
	b.t.Helper()
	members, err := b.sets.Members(set)
	b.must(err)
	h, err := b.sets.Header(set)
	b.must(err)
	var got []string
	for _, m := range members {
		got = append(got, memberText(h.Type, m))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		b.t.Errorf("set %s holds %v, want %v", set, got, want)
	}
}

// rules are a chain's; nil without the chain.
func (b *bench) rules(backend iptables.Backend, f family.Family, table, chain string) []string {
	b.t.Helper()
	for _, fake := range b.tables {
		if fake.Backend() == backend && fake.Family() == f {
			rules, err := fake.List(b.t.Context(), table, chain)
			if errors.Is(err, iptables.ErrNotFound) {
				return nil
			}
			b.must(err)
			return rules
		}
	}
	b.t.Fatalf("no %s %s tables", backend, f)
	return nil
}

// dump is everything the kernel holds, as text.
func (b *bench) dump() string {
	b.t.Helper()
	var s strings.Builder
	for _, fake := range b.tables {
		for _, h := range hooks() {
			for _, chain := range []string{h.Parent, h.Chain} {
				if chain == "" {
					continue
				}
				rules, err := fake.List(b.t.Context(), h.Table, chain)
				if err == nil {
					s.WriteString(string(fake.Backend()) + fake.Family().String() + h.Table + chain + "\n" + strings.Join(rules, "\n") + "\n")
				}
			}
		}
	}
	names, err := b.sets.Names()
	b.must(err)
	for _, n := range names {
		members, err := b.sets.Members(n)
		b.must(err)
		s.WriteString(n)
		for _, m := range members {
			s.WriteString(" " + m.String())
		}
		s.WriteString("\n")
	}
	for _, f := range family.All() {
		addresses, err := b.network.Addresses(f)
		b.must(err)
		for _, a := range addresses {
			s.WriteString(a.String() + "\n")
		}
		marks, err := b.network.Marks(f)
		b.must(err)
		for _, m := range marks {
			s.WriteString("mark table " + string(rune(m.Table)) + "\n")
		}
	}
	return s.String()
}

// node makes a model of "class address:port" frontends and pod addresses.
func node(t *testing.T, frontends []string, pods ...string) *model.Node {
	t.Helper()
	n := &model.Node{}
	for _, text := range frontends {
		class, address, _ := strings.Cut(text, " ")
		fe := model.Frontend{Address: netip.MustParseAddrPort(address), Backends: []model.Backend{{Address: netip.MustParseAddrPort("10.1.9.9:1")}}}
		for _, c := range model.Classes() {
			if c.String() == class {
				fe.Class = c
			}
		}
		n.Frontends = append(n.Frontends, fe)
	}
	for _, ip := range pods {
		n.Pods = append(n.Pods, model.Pod{Namespace: "a", Name: ip, Enrolled: true, IPs: []netip.Addr{netip.MustParseAddr(ip)}})
	}
	return n
}

// contextOfTest ends soon: for what waits for a kernel that never lets go.
func contextOfTest(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), 100*time.Millisecond)
}
