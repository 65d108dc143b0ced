// SPDX-License-Identifier: Apache-2.0

package redirecttest

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/route"
)

// Fixture is a whole fake kernel, with a clock that only tests move.
type Fixture struct {
	T       *testing.T
	Now     time.Time
	Sets    *ipset.Fake
	Network *route.Fake
	Tables  []*iptables.Fake
	// hook, when set, is asked before every Restore; an error fails it.
	Hook func(t *iptables.Fake, text string) error
	Cfg  plan.Config
}

// New is the kernel of a node on which nothing was changed yet.
func New(t *testing.T) *Fixture {
	b := &Fixture{T: t, Now: time.Unix(1e9, 0), Network: route.NewFake(), Cfg: plan.DefaultConfig()}
	b.Cfg.Mechanism, b.Cfg.Backend = plan.DNAT, netfilter.NFT
	b.Sets = ipset.NewFake(func() time.Time { return b.Now })
	for _, backend := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
		for _, f := range family.All() {
			fake := iptables.NewFake(backend, f)
			fake.SetExists = b.Sets.Exists
			b.Tables = append(b.Tables, fake)
		}
	}
	b.Sets.References = func(set string) int {
		n := 0
		for _, fake := range b.Tables {
			n += fake.References(set)
		}
		return n
	}
	return b
}

// hooked is a Fake whose writes the fixture is told of first.
type hooked struct {
	*iptables.Fake
	fixture *Fixture
}

func (h hooked) Restore(ctx context.Context, text string) error {
	if h.fixture.Hook != nil {
		if err := h.fixture.Hook(h.Fake, text); err != nil {
			return err
		}
	}
	return h.Fake.Restore(ctx, text)
}

// Kernel is the fake as what code under test takes.
func (b *Fixture) Kernel() apply.Kernel {
	k := apply.Kernel{Sets: b.Sets, Urgent: b.Sets, Network: b.Network}
	for _, fake := range b.Tables {
		k.Tables = append(k.Tables, hooked{fake, b})
	}
	return k
}

// Applier is a fresh Applier, as after a restart.
func (b *Fixture) Applier() *apply.Applier { return apply.NewWith(b.Cfg, b.Kernel(), zap.NewNop()) }

// Plan is the plan of a node, of the fixture's configuration.
func (b *Fixture) Plan(n *model.Node) *plan.Plan { return plan.Compile(n, b.Cfg) }

// Applied is an agent that has applied the plan of a node.
func (b *Fixture) Applied(n *model.Node) *apply.Applier {
	b.T.Helper()
	a := b.Applier()
	b.Must(a.Apply(b.T.Context(), b.Plan(n)))
	return a
}

// Must ends the test on an error.
func (b *Fixture) Must(err error) {
	b.T.Helper()
	if err != nil {
		b.T.Fatal(err)
	}
}

// Holds checks the members of a set, written as ipset does.
func (b *Fixture) Holds(set string, want ...string) {
	b.T.Helper()
	members, err := b.Sets.Members(set)
	b.Must(err)
	h, err := b.Sets.Header(set)
	b.Must(err)
	var got []string
	for _, m := range members {
		got = append(got, plan.MemberText(h.Type, m))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		b.T.Errorf("set %s holds %v, want %v", set, got, want)
	}
}

// Rules are a chain's; nil without the chain.
func (b *Fixture) Rules(backend netfilter.Backend, f family.Family, table, chain string) []string {
	b.T.Helper()
	for _, fake := range b.Tables {
		if fake.Backend() == backend && fake.Family() == f {
			rules, err := fake.List(b.T.Context(), table, chain)
			if errors.Is(err, iptables.ErrNotFound) {
				return nil
			}
			b.Must(err)
			return rules
		}
	}
	b.T.Fatalf("no %s %s tables", backend, f)
	return nil
}

// Dump is everything the kernel holds, as text.
func (b *Fixture) Dump() string {
	b.T.Helper()
	var s strings.Builder
	for _, fake := range b.Tables {
		for _, h := range plan.Hooks() {
			for _, chain := range []string{h.Parent, h.Chain} {
				if chain == "" {
					continue
				}
				rules, err := fake.List(b.T.Context(), h.Table, chain)
				if err == nil {
					s.WriteString(string(fake.Backend()) + fake.Family().String() + h.Table + chain + "\n" + strings.Join(rules, "\n") + "\n")
				}
			}
		}
	}
	names, err := b.Sets.Names()
	b.Must(err)
	for _, n := range names {
		members, err := b.Sets.Members(n)
		b.Must(err)
		s.WriteString(n)
		for _, m := range members {
			s.WriteString(" " + m.String())
		}
		s.WriteString("\n")
	}
	for _, f := range family.All() {
		addresses, err := b.Network.Addresses(f)
		b.Must(err)
		for _, a := range addresses {
			s.WriteString(a.String() + "\n")
		}
		marks, err := b.Network.Marks(f)
		b.Must(err)
		for _, m := range marks {
			s.WriteString("mark table " + string(rune(m.Table)) + "\n")
		}
	}
	return s.String()
}

// Node makes a model of "class address:port" frontends and pod addresses.
func Node(t *testing.T, frontends []string, pods ...string) *model.Node {
	t.Helper()
	n := &model.Node{}
	for _, text := range frontends {
		class, address, _ := strings.Cut(text, " ")
		fe := &model.Frontend{Address: netip.MustParseAddrPort(address), Backends: []model.Backend{{Address: netip.MustParseAddrPort("10.1.9.9:1")}}}
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

// ShortContext ends soon: for what waits for a kernel that never lets go.
func ShortContext(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), 100*time.Millisecond)
}

// ErrRefused is what a hook of a test returns.
var ErrRefused = errors.New("refused by the test")

// Chain makes a chain of somebody else's.
func (b *Fixture) Chain(backend netfilter.Backend, table, name string, rules ...string) {
	b.T.Helper()
	text := "*" + table + "\n:" + name + " - [0:0]\n" + strings.Join(append(rules, ""), "\n") + "COMMIT\n"
	for _, fake := range b.Tables {
		if fake.Backend() == backend && fake.Family() == family.V4 {
			b.Must(fake.Restore(b.T.Context(), text))
		}
	}
}
