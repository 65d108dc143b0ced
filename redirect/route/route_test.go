// SPDX-License-Identifier: Apache-2.0

package route_test

import (
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/route"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

func TestMain(m *testing.M) { os.Exit(space.Main(m)) }

// kernel is what redirection needs of this room, and the contract is about.
type kernel = apply.Network

// on runs a contract on the fake and on the real kernel.
func on(t *testing.T, contract func(t *testing.T, k kernel)) {
	t.Helper()
	t.Run("fake", func(t *testing.T) { contract(t, route.NewFake()) })
	t.Run("kernel", func(t *testing.T) { contract(t, open(t)) })
}

func open(t *testing.T) *route.Network {
	t.Helper()
	space.New(t)
	n, err := route.Open()
	must(t, err)
	t.Cleanup(func() { _ = n.Close() })
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAddresses(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		for f, text := range map[family.Family]string{family.V4: "169.254.64.15", family.V6: "fd6e:6f64:6576:6f79::15"} {
			addr := netip.MustParseAddr(text)
			before, err := k.Addresses(f)
			must(t, err)
			for range 2 {
				must(t, k.AddAddress(addr))
				have, err := k.Addresses(f)
				must(t, err)
				if !slices.Contains(have, addr) || len(have) != len(before)+1 {
					t.Errorf("after adding %s: %v, before %v", addr, have, before)
				}
			}
			for range 2 {
				must(t, k.DeleteAddress(addr))
			}
			after, err := k.Addresses(f)
			must(t, err)
			if !slices.Equal(after, before) {
				t.Errorf("after deleting %s: %v, want %v", addr, after, before)
			}
		}
	})
}

func TestRule(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		for _, f := range family.All() {
			r := netfilter.PolicyRule{Family: f, Mark: 0x10, Table: 1064, Priority: 1064}
			has := func(want bool) {
				t.Helper()
				got, err := k.HasRule(r)
				must(t, err)
				if got != want {
					t.Errorf("%s: has the rule %v, want %v", f, got, want)
				}
			}
			has(false)
			for range 2 {
				must(t, k.AddRule(r))
				has(true)
				marks, err := k.Marks(f)
				must(t, err)
				if want := []route.Foreign{{Mark: 0x10, Mask: 0x10, Table: 1064, Priority: 1064}}; !slices.Equal(marks, want) {
					t.Errorf("%s: rules %v, want %v", f, marks, want)
				}
			}
			for range 2 {
				must(t, k.DeleteRule(r))
				has(false)
			}
		}
	})
}

// TestText shows what the ip command sees, and that half of a rule is none.
func TestText(t *testing.T) {
	k := open(t)
	run := func(command string) string {
		t.Helper()
		out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %s: %v: %s", command, err, out)
		}
		return string(out)
	}
	must(t, k.AddAddress(netip.MustParseAddr("169.254.64.15")))
	must(t, k.AddAddress(netip.MustParseAddr("fd6e:6f64:6576:6f79::15")))
	addresses := run("address show dev lo")
	for _, want := range []string{"inet 169.254.64.15/32 scope host lo\n", "inet6 fd6e:6f64:6576:6f79::15/128 scope global nodad deprecated \n       valid_lft forever preferred_lft 0sec\n"} {
		if !strings.Contains(addresses, want) {
			t.Errorf("no %q in:\n%s", want, addresses)
		}
	}
	for flag, f := range map[string]family.Family{"-4": family.V4, "-6": family.V6} {
		r := netfilter.PolicyRule{Family: f, Mark: 0x10, Table: 1064, Priority: 1064}
		must(t, k.AddRule(r))
		if got, want := run(flag+" rule show priority 1064"), "1064:\tfrom all fwmark 0x10/0x10 lookup 1064\n"; got != want {
			t.Errorf("rule %q, want %q", got, want)
		}
		if got := run(flag + " route show table 1064"); !strings.HasPrefix(got, "local default dev lo") {
			t.Errorf("route %q", got)
		}
		run(flag + " route flush table 1064")
		if has, err := k.HasRule(r); err != nil || has {
			t.Errorf("without its route the rule is there: %v, %v", has, err)
		}
		must(t, k.AddRule(r))
		run(flag + " rule del priority 1064")
		if has, err := k.HasRule(r); err != nil || has {
			t.Errorf("without its rule the route is enough: %v, %v", has, err)
		}
		must(t, k.DeleteRule(r))
		if got := run(flag + " route show table all"); strings.Contains(got, "1064") {
			t.Errorf("left behind: %s", got)
		}
	}
}

func TestBridged(t *testing.T) {
	for _, tc := range []struct {
		netfilter bool
		wiring    space.Wiring
		want      string
	}{
		{true, space.Bridged, "veth2"},
		{false, space.Bridged, ""},
		{true, space.Unnumbered, ""},
	} {
		t.Run(string(tc.wiring), func(t *testing.T) {
			node := space.New(t)
			node.Bridge(tc.netfilter)
			node.Pod(tc.wiring)
			k, err := route.Open()
			must(t, err)
			t.Cleanup(func() { _ = k.Close() })
			for _, f := range family.All() {
				got, err := k.Bridged(f)
				must(t, err)
				if got != tc.want {
					t.Errorf("%s, netfilter %v: %q, want %q", f, tc.netfilter, got, tc.want)
				}
			}
		})
	}
}

// TestLocal: what the kernel takes for its own is every address of every interface,
// and what has a local route, but not the cluster IPs of kube-proxy's IPVS mode.
func TestLocal(t *testing.T) {
	n := open(t)
	ip := func(args string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", args, err, out)
		}
	}
	for _, args := range []string{
		"link add one type bridge", "link set one up", "address add 192.0.2.77/32 dev one", "address add 2001:db8::77/128 dev one nodad",
		"route add local 198.51.100.0/28 dev lo table local", "route add local 2001:db8:1::/64 dev lo table local",
		"route add local 203.0.113.0/24 dev lo table 1064", "route add 10.0.0.0/8 dev one",
		"link add kube-ipvs0 type bridge", "address add 10.96.0.1/32 dev kube-ipvs0", "address add fd00:96::1/128 dev kube-ipvs0 nodad",
	} {
		ip(args)
	}
	for f, want := range map[family.Family][]string{
		family.V4: {"127.0.0.0/8", "192.0.2.77/32", "198.51.100.0/28"},
		family.V6: {"::1/128", "2001:db8::77/128", "2001:db8:1::/64"},
	} {
		local, err := n.Local(f)
		must(t, err)
		for _, text := range want {
			if !slices.Contains(local, netip.MustParsePrefix(text)) {
				t.Errorf("%s: %s is not in %v", f, text, local)
			}
		}
		for _, text := range []string{"10.96.0.1", "203.0.113.1", "10.0.0.1", "fd00:96::1"} {
			if slices.ContainsFunc(local, func(p netip.Prefix) bool { return p.Contains(netip.MustParseAddr(text)) }) {
				t.Errorf("%s: %s is in %v", f, text, local)
			}
		}
	}
}
