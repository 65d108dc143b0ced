// SPDX-License-Identifier: Apache-2.0

package ipset_test

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

func TestMain(m *testing.M) { os.Exit(space.Main(m)) }

// kernel is what redirection needs of this room, and the contract is about.
type kernel = apply.Sets

// on runs a contract on the fake and on the real kernel.
func on(t *testing.T, contract func(t *testing.T, k kernel)) {
	t.Helper()
	t.Run("fake", func(t *testing.T) { contract(t, ipset.NewFake(time.Now)) })
	t.Run("kernel", func(t *testing.T) { contract(t, open(t)) })
}

func open(t testing.TB) *ipset.Sets {
	t.Helper()
	space.New(t)
	s, err := ipset.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func pods(f family.Family, timeout time.Duration) netfilter.SetSpec {
	return netfilter.SetSpec{Name: "pods" + f.Digit(), Type: netfilter.HashIP, Family: f, Timeout: timeout, MaxElements: 1000}
}

func frontends(f family.Family, room uint32) netfilter.SetSpec {
	return netfilter.SetSpec{Name: "frontends" + f.Digit(), Type: netfilter.HashIPPort, Family: f, MaxElements: room}
}

func members(texts ...string) []netfilter.Member {
	var m []netfilter.Member
	for _, s := range texts {
		if a, err := netip.ParseAddr(s); err == nil {
			m = append(m, netip.AddrPortFrom(a, 0))
		} else {
			m = append(m, netip.MustParseAddrPort(s))
		}
	}
	return m
}

func same(t *testing.T, k kernel, set string, want []netfilter.Member) {
	t.Helper()
	got, err := k.Members(set)
	must(t, err)
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("members of %s (-want +got):\n%s", set, d)
	}
}

func TestMembers(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		for _, tc := range []struct {
			spec netfilter.SetSpec
			in   []netfilter.Member
		}{
			{pods(family.V4, 30*time.Second), members("10.0.0.1", "10.0.0.2", "10.0.0.3")},
			{pods(family.V6, 30*time.Second), members("fd00::1", "fd00::2", "fd00::3")},
			{frontends(family.V4, 1000), members("10.96.0.1:80", "10.96.0.1:443", "10.96.0.2:80")},
			{frontends(family.V6, 1000), members("[fd96::1]:80", "[fd96::1]:443", "[fd96::2]:80")},
		} {
			must(t, k.Create(tc.spec))
			must(t, k.Add(tc.spec, tc.in))
			same(t, k, tc.spec.Name, tc.in)
			// Adding what is there and deleting what is not are no errors.
			must(t, k.Add(tc.spec, tc.in[:1]))
			must(t, k.Delete(tc.spec, tc.in[:1]))
			must(t, k.Delete(tc.spec, tc.in[:1]))
			same(t, k, tc.spec.Name, tc.in[1:])
			h, err := k.Header(tc.spec.Name)
			must(t, err)
			if d := cmp.Diff(ipset.Header{SetSpec: tc.spec, Count: 2}, h); d != "" {
				t.Errorf("header (-want +got):\n%s", d)
			}
			must(t, k.Flush(tc.spec.Name))
			same(t, k, tc.spec.Name, nil)
			must(t, k.Add(tc.spec, nil))
		}
		names, err := k.Names()
		must(t, err)
		if d := cmp.Diff([]string{"frontends4", "frontends6", "pods4", "pods6"}, names); d != "" {
			t.Errorf("names (-want +got):\n%s", d)
		}
	})
}

// TestAsked asks the kernel for single members, and for what time they stay.
func TestAsked(t *testing.T) {
	k := open(t)
	for _, f := range family.All() {
		p, e := pods(f, 30*time.Second), frontends(f, 1000)
		ip, at := members(family.Pick(f, "10.0.0.1", "fd00::1"))[0], members(family.Pick(f, "10.96.0.1:80", "[fd96::1]:80"))[0]
		if _, err := k.Has(p, ip); !errors.Is(err, ipset.ErrNotFound) {
			t.Errorf("%s: without the set: %v", f, err)
		}
		must(t, k.Create(p))
		must(t, k.Create(e))
		for set, m := range map[netfilter.SetSpec]netfilter.Member{p: ip, e: at} {
			for _, want := range []bool{false, true} {
				if got, err := k.Has(set, m); got != want || err != nil {
					t.Errorf("%s: %s in set %s: %v, %v, want %v", f, m, set.Name, got, err, want)
				}
				must(t, k.Add(set, []netfilter.Member{m}))
			}
		}
		left, err := k.Expiries(p.Name)
		must(t, err)
		if len(left) != 1 || left[ip] < 28*time.Second || left[ip] > 30*time.Second {
			t.Errorf("%s: %v", f, left)
		}
		left, err = k.Expiries(e.Name)
		must(t, err)
		if _, is := left[at]; len(left) != 1 || !is || left[at] != 0 {
			t.Errorf("%s: %v", f, left)
		}
	}
}

func TestErrors(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		spec := frontends(family.V4, 3)
		for what, err := range map[string]error{
			"header": second(k.Header(spec.Name)), "members": second(k.Members(spec.Name)), "flush": k.Flush(spec.Name),
			"add": k.Add(spec, members("10.0.0.1:1")), "delete": k.Delete(spec, members("10.0.0.1:1")), "swap": k.Swap("a", "b"),
		} {
			if !errors.Is(err, ipset.ErrNotFound) {
				t.Errorf("%s without the set: %v, want ErrNotFound", what, err)
			}
		}
		must(t, k.Destroy(spec.Name))
		must(t, k.Create(spec))
		if err := k.Create(spec); !errors.Is(err, ipset.ErrExists) {
			t.Errorf("create again: %v, want ErrExists", err)
		}
		must(t, k.Create(pods(family.V4, 0)))
		if err := k.Swap(spec.Name, "pods4"); !errors.Is(err, ipset.ErrMismatch) {
			t.Errorf("swap with another type: %v, want ErrMismatch", err)
		}
		must(t, k.Destroy(spec.Name))
		if _, err := k.Header(spec.Name); !errors.Is(err, ipset.ErrNotFound) {
			t.Errorf("header after destroy: %v, want ErrNotFound", err)
		}
	})
}

func TestFull(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		spec := frontends(family.V4, 64)
		must(t, k.Create(spec))
		var many []netfilter.Member
		for i := range 2000 {
			many = append(many, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80))
		}
		if err := k.Add(spec, many); !errors.Is(err, ipset.ErrFull) {
			t.Errorf("add too many: %v, want ErrFull", err)
		}
	})
}

func TestSwap(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		spec := frontends(family.V4, 100)
		other := spec
		other.Name, other.MaxElements = "other", 200
		must(t, k.Create(spec))
		must(t, k.Create(other))
		must(t, k.Add(spec, members("10.0.0.1:1")))
		must(t, k.Add(other, members("10.0.0.2:2")))
		must(t, k.Swap(spec.Name, other.Name))
		same(t, k, spec.Name, members("10.0.0.2:2"))
		same(t, k, other.Name, members("10.0.0.1:1"))
		h, err := k.Header(spec.Name)
		must(t, err)
		if h.MaxElements != 200 {
			t.Errorf("after the swap there is room for %d, want 200", h.MaxElements)
		}
	})
}

func TestTimeout(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		spec := pods(family.V4, 2*time.Second)
		must(t, k.Create(spec))
		both := members("10.0.0.1", "10.0.0.2")
		must(t, k.Add(spec, both))
		renewed := time.Now()
		// One is renewed all the time and must outlive the other.
		space.Until(t, 5*time.Second, "the other to expire", func() error {
			renewed = time.Now()
			must(t, k.Add(spec, both[:1]))
			got, err := k.Members(spec.Name)
			must(t, err)
			if len(got) > 1 {
				return errors.New("still there")
			}
			return nil
		})
		same(t, k, spec.Name, both[:1])
		h, err := k.Header(spec.Name)
		must(t, err)
		if h.Count != 1 {
			t.Errorf("count is %d after one expired, want 1", h.Count)
		}
		space.Until(t, 5*time.Second, "the renewed one to expire", func() error {
			if got, _ := k.Members(spec.Name); len(got) > 0 {
				return errors.New("still there")
			}
			return nil
		})
		// The kernel counts in whole seconds, and may round down.
		if lived := time.Since(renewed); lived < time.Second {
			t.Errorf("expired %s after it was renewed, want 2s", lived)
		}
	})
}

// TestInUse needs a rule, so the fake is told of one.
func TestInUse(t *testing.T) {
	spec := frontends(family.V4, 100)
	check := func(t *testing.T, k kernel) {
		if err := k.Destroy(spec.Name); !errors.Is(err, ipset.ErrInUse) {
			t.Errorf("destroy: %v, want ErrInUse", err)
		}
		h, err := k.Header(spec.Name)
		must(t, err)
		if h.References != 1 {
			t.Errorf("references: %d, want 1", h.References)
		}
	}
	t.Run("fake", func(t *testing.T) {
		f := ipset.NewFake(time.Now)
		must(t, f.Create(spec))
		f.References = func(string) int { return 1 }
		check(t, f)
	})
	t.Run("kernel", func(t *testing.T) {
		s := open(t)
		must(t, s.Create(spec))
		must(t, exec.Command("iptables-nft", "-A", "INPUT", "-m", "set", "--match-set", spec.Name, "dst,dst", "-j", "ACCEPT").Run())
		check(t, s)
	})
}

// TestSave shows that the ipset command understands what was made.
func TestSave(t *testing.T) {
	s := open(t)
	for _, f := range family.All() {
		must(t, s.Create(pods(f, 30*time.Second)))
		must(t, s.Create(frontends(f, 1<<18)))
	}
	must(t, s.Add(frontends(family.V4, 0), members("10.96.0.1:80")))
	must(t, s.Add(frontends(family.V6, 0), members("[fd96::1]:80")))
	out, err := exec.Command("ipset", "save").Output()
	must(t, err)
	for _, want := range []string{
		"create pods4 hash:ip family inet hashsize 1024 maxelem 1000 timeout 30\n",
		"create frontends4 hash:ip,port family inet hashsize 1024 maxelem 262144\n",
		"add frontends4 10.96.0.1,tcp:80\n",
		"create pods6 hash:ip family inet6 hashsize 1024 maxelem 1000 timeout 30\n",
		"add frontends6 fd96::1,tcp:80\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("ipset save lacks %q:\n%s", want, out)
		}
	}
}

// TestClosed shows that a socket which fails gives errors.
func TestClosed(t *testing.T) {
	s := open(t)
	must(t, s.Close())
	spec := pods(family.V4, 0)
	for what, err := range map[string]error{
		"protocol": second(s.Protocol()), "create": s.Create(spec), "destroy": s.Destroy("x"), "flush": s.Flush("x"), "swap": s.Swap("x", "y"),
		"add": s.Add(spec, members("10.0.0.1")), "delete": s.Delete(spec, members("10.0.0.1")), "header": second(s.Header("x")),
		"members": second(s.Members("x")), "names": second(s.Names()),
	} {
		if err == nil {
			t.Errorf("%s on a closed socket is no error", what)
		}
	}
}

// TestTooMuch: what nobody needs is not read, and what a cluster of 10,000 frontends
// needs is a fraction of that.
func TestTooMuch(t *testing.T) {
	trusted := open(t)
	s := trusted.Untrusted()
	spec := frontends(family.V6, 1<<20)
	must(t, s.Create(spec))
	fill := func(from, to int) {
		var many []netfilter.Member
		for i := from; i < to; i++ {
			many = append(many, netip.AddrPortFrom(netip.AddrFrom16([16]byte{0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)}), 80))
		}
		must(t, s.Add(spec, many))
	}
	fill(0, 60_000)
	if got, err := s.Members(spec.Name); len(got) != 60_000 {
		t.Errorf("%d members, %v", len(got), err)
	}
	fill(60_000, 200_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if got, err := s.Members(spec.Name); !errors.Is(err, dump.ErrTooMuch) {
		t.Errorf("%d members, %v; want ErrTooMuch", len(got), err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 8*ipset.MaxUntrusted {
		t.Errorf("it took %d KiB", took>>10)
	}
	// It is still there to be worked with, and not everybody is bound.
	if h, err := s.Header(spec.Name); err != nil || h.Count != 200_000 {
		t.Errorf("%+v, %v", h, err)
	}
	if got, err := trusted.Members(spec.Name); len(got) != 200_000 {
		t.Errorf("%d members, %v", len(got), err)
	}
}

func second[T any](_ T, err error) error { return err }

func BenchmarkAdd10000(b *testing.B) {
	s := open(b)
	spec := frontends(family.V4, 1<<18)
	must(b, s.Create(spec))
	many := tenThousand()
	for b.Loop() {
		must(b, s.Flush(spec.Name))
		must(b, s.Add(spec, many))
	}
}

func BenchmarkMembers10000(b *testing.B) {
	s := open(b)
	spec := frontends(family.V4, 1<<18)
	must(b, s.Create(spec))
	must(b, s.Add(spec, tenThousand()))
	for b.Loop() {
		got, err := s.Members(spec.Name)
		must(b, err)
		if len(got) != 10000 {
			b.Fatalf("%d members, want 10000", len(got))
		}
	}
}

func tenThousand() []netfilter.Member {
	var many []netfilter.Member
	for i := range 10000 {
		many = append(many, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), 80))
	}
	return many
}
