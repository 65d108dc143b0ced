// SPDX-License-Identifier: Apache-2.0

package iptables_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

func TestMain(m *testing.M) { os.Exit(space.Main(m)) }

// kernel is what Tables and Fake have in common.
type kernel interface {
	List(ctx context.Context, table, chain string) ([]string, error)
	Restore(ctx context.Context, text string) error
	Test(ctx context.Context, text string) error
	Generation() (uint32, error)
	DropEmpty(table string) error
	Backend() netfilter.Backend
}

// on runs a contract on the fake, and on both real backends and families.
func on(t *testing.T, contract func(t *testing.T, k kernel)) {
	t.Helper()
	t.Run("fake", func(t *testing.T) {
		f := iptables.NewFake(netfilter.NFT, family.V4)
		f.SetExists = func(string) bool { return false }
		contract(t, f)
	})
	for _, b := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
		for _, f := range family.All() {
			t.Run(string(b)+"-"+f.String(), func(t *testing.T) { contract(t, open(t, b, f)) })
		}
	}
}

func open(t *testing.T, b netfilter.Backend, f family.Family) *iptables.Tables {
	t.Helper()
	space.New(t)
	k, err := iptables.Open(b, f)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func restore(t *testing.T, k kernel, lines ...string) {
	t.Helper()
	if err := k.Restore(t.Context(), strings.Join(lines, "\n")+"\n"); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, k kernel, chain string, want ...string) {
	t.Helper()
	got, err := k.List(t.Context(), "nat", chain)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("rules of %s (-want +got):\n%s", chain, d)
	}
}

func absent(t *testing.T, k kernel, chain string) {
	t.Helper()
	if rules, err := k.List(t.Context(), "nat", chain); !errors.Is(err, iptables.ErrNotFound) {
		t.Errorf("chain %s: %q, %v; want ErrNotFound", chain, rules, err)
	}
}

func TestChains(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		absent(t, k, "OWN")
		holds(t, k, "PREROUTING")
		restore(t, k, "*nat", ":OWN - [0:0]", "-A OWN -p tcp -j RETURN", "-A OWN -j ACCEPT", "COMMIT")
		holds(t, k, "OWN", "-A OWN -p tcp -j RETURN", "-A OWN -j ACCEPT")
		absent(t, k, "OTHER")
		// Declared again, a chain is emptied and filled; others stay.
		restore(t, k, "*nat", ":OTHER - [0:0]", ":OWN - [0:0]", "-A OWN -j OTHER", "COMMIT")
		holds(t, k, "OWN", "-A OWN -j OTHER")
		restore(t, k, "*nat", ":OWN - [0:0]", "-A OWN -j RETURN", "COMMIT")
		holds(t, k, "OWN", "-A OWN -j RETURN")
		holds(t, k, "OTHER")
		restore(t, k, "*nat", "-F OWN", "-F OTHER", "-X OWN", "-X OTHER", "COMMIT")
		absent(t, k, "OWN")
		absent(t, k, "OTHER")
	})
}

// TestCounters sends packets and reads which rules have matched them, which List shows
// in the same words.
func TestCounters(t *testing.T) {
	for _, b := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
		k := open(t, b, family.V4)
		restore(t, k, "*nat", ":NODEVOY-OUTPUT - [0:0]", "-I OUTPUT -p tcp -j NODEVOY-OUTPUT",
			"-A NODEVOY-OUTPUT -p tcp -m tcp --dport 81 -j RETURN", "-A NODEVOY-OUTPUT -p tcp -m tcp --dport 82 -j REDIRECT --to-ports 83", "COMMIT")
		for range 2 {
			if _, err := net.Dial("tcp", "127.0.0.1:82"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("dial: %v", err)
			}
		}
		var rules, packets []string
		for _, chain := range []string{"OUTPUT", "NODEVOY-OUTPUT"} {
			counted, err := k.Counters(t.Context(), "nat", chain)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range counted {
				rules, packets = append(rules, c.Rule), append(packets, strconv.FormatUint(c.Packets, 10))
			}
		}
		holds(t, k, "OUTPUT", rules[0])
		holds(t, k, "NODEVOY-OUTPUT", rules[1:]...)
		if got := strings.Join(packets, " "); got != "2 0 2" {
			t.Errorf("%s: packets %s, want 2 0 2", b, got)
		}
	}
}

func TestJumps(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		restore(t, k, "*nat", ":OWN - [0:0]", ":FOREIGN - [0:0]", "-A PREROUTING -j FOREIGN", "-A PREROUTING -p tcp -j OWN", "-A PREROUTING -p tcp -j OWN", "COMMIT")
		// Duplicates out and one in, in first place, in one step.
		restore(t, k, "*nat", "-D PREROUTING -p tcp -j OWN", "-D PREROUTING -p tcp -j OWN", "-I PREROUTING 1 -p tcp -j OWN", "COMMIT")
		holds(t, k, "PREROUTING", "-A PREROUTING -p tcp -j OWN", "-A PREROUTING -j FOREIGN")
	})
}

// TestGeneration: it is the same as long as nothing changes, whatever packets
// come, and another after any change. That of legacy tables is of the rules, so
// that the same rules have the same again.
func TestGeneration(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		restore(t, k, "*nat", ":OWN - [0:0]", "COMMIT")
		seen := map[uint32]bool{}
		for _, line := range []string{"-A OWN -j RETURN", "-I PREROUTING 1 -j OWN", "-D PREROUTING -j OWN"} {
			restore(t, k, "*nat", line, "COMMIT")
			before, err := k.Generation()
			if err != nil {
				t.Fatal(err)
			}
			holds(t, k, "OWN", "-A OWN -j RETURN")
			after, err := k.Generation()
			if err != nil {
				t.Fatal(err)
			}
			if before != after {
				t.Errorf("generation %d became %d without a change", before, after)
			}
			again := k.Backend() == netfilter.Legacy && strings.HasPrefix(line, "-D")
			if before == 0 || seen[before] != again {
				t.Errorf("after %q: generation %d, seen before: %v", line, before, seen)
			}
			seen[before] = true
		}
	})
}

// TestGenerationOfPackets: counters are no rules.
func TestGenerationOfPackets(t *testing.T) {
	for _, f := range family.All() {
		k := open(t, netfilter.Legacy, f)
		restore(t, k, "*nat", "-A OUTPUT -m conntrack --ctstate NEW -m addrtype --dst-type LOCAL -j ACCEPT", "COMMIT")
		before, err := k.Generation()
		if err != nil || before == 0 {
			t.Fatalf("generation %d, %v", before, err)
		}
		c, err := net.Dial("udp", netip.AddrPortFrom(f.Loopback(), 9).String())
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Write([]byte("counted"))
		if err = errors.Join(err, c.Close()); err != nil {
			t.Fatal(err)
		}
		counted, err := exec.Command(map[family.Family]string{family.V4: "iptables", family.V6: "ip6tables"}[f]+"-legacy-save", "-c", "-t", "nat").Output()
		if err != nil || !strings.Contains(string(counted), "[1:") {
			t.Fatalf("no packet was counted: %s, %v", counted, err)
		}
		if after, err := k.Generation(); err != nil || after != before {
			t.Errorf("%s: generation %d became %d by a packet (%v)", f, before, after, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		restore(t, k, "*nat", ":OWN - [0:0]", "-A OWN -j RETURN", "-A PREROUTING -j OWN", "COMMIT")
		for what, line := range map[string]string{
			"delete a rule that is not there":   "-D PREROUTING -p tcp -j OWN",
			"jump to a chain that is not there": "-A OWN -j NOWHERE",
			"delete a chain that has rules":     "-X OWN",
			"empty a chain that is not there":   "-F NOWHERE",
			"append to a chain not there":       "-A NOWHERE -j RETURN",
			"match a set that is not there":     "-A OWN -m set --match-set nowhere src -j RETURN",
		} {
			err := k.Restore(t.Context(), "*nat\n-A OWN -p tcp -j ACCEPT\n"+line+"\nCOMMIT\n")
			if err == nil {
				t.Errorf("%s: no error", what)
			}
			// The table is as it was: the line before has not happened either.
			holds(t, k, "OWN", "-A OWN -j RETURN")
		}
	})
}

func TestRefusalShowsTheLine(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		err := k.Restore(t.Context(), "*nat\n:OWN - [0:0]\n-A OWN -j RETURN\n-A NOWHERE -j RETURN\n-A OWN -j ACCEPT\nCOMMIT\n")
		if err == nil || !strings.Contains(err.Error(), ">    4  -A NOWHERE -j RETURN") || !strings.Contains(err.Error(), "     3  -A OWN -j RETURN") {
			t.Errorf("the error doesn't show line 4 and those around: %v", err)
		}
		absent(t, k, "OWN")
	})
}

func TestDryRun(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		if err := k.Test(t.Context(), "*nat\n:OWN - [0:0]\n-A OWN -j RETURN\nCOMMIT\n"); err != nil {
			t.Error(err)
		}
		absent(t, k, "OWN")
		// What iptables-nft tests is matches and targets, not chains.
		if err := k.Test(t.Context(), "*nat\n:OWN - [0:0]\n-A OWN -m set --match-set nowhere src -j RETURN\nCOMMIT\n"); err == nil {
			t.Error("a rule with a set that is not there passes the test")
		}
	})
}

func TestContext(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := k.Restore(ctx, "*nat\nCOMMIT\n"); err == nil {
			t.Error("restore goes on when its context has ended")
		}
		if _, err := k.List(ctx, "nat", "PREROUTING"); err == nil {
			t.Error("list goes on when its context has ended")
		}
	})
}

// TestListMakesNoTable shows that looking leaves no trace: iptables-legacy sets
// up any table it is asked about.
func TestListMakesNoTable(t *testing.T) {
	for _, b := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
		k := open(t, b, family.V4)
		holds(t, k, "PREROUTING")
		absent(t, k, "OWN")
	}
	names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	if err != nil {
		t.Fatal(err)
	}
	tables, err := iptables.NFTables(family.V4)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) > 0 || len(tables) > 0 {
		t.Errorf("tables made by listing: legacy %q, nft %q", names, tables)
	}
}

// TestUnreadable: a native rule in the kernel's chain hides all others from
// iptables, which says the same as of a chain that is not there.
func TestUnreadable(t *testing.T) {
	k := open(t, netfilter.NFT, family.V4)
	restore(t, k, "*nat", ":OWN - [0:0]", "-A PREROUTING -j OWN", "COMMIT")
	rule := "add rule ip nat PREROUTING tcp dport { 99, 100 } dnat to numgen inc mod 2 map { 0: 192.0.2.1, 1: 192.0.2.2 }"
	if out, err := exec.Command("nft", strings.Fields(rule)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if rules, err := k.List(t.Context(), "nat", "PREROUTING"); !errors.Is(err, iptables.ErrUnreadable) {
		t.Errorf("PREROUTING: %q, %v; want ErrUnreadable", rules, err)
	}
	holds(t, k, "OWN")
}

// TestDropEmpty: nothing of anybody's goes with an empty table.
func TestDropEmpty(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		drop := func() {
			t.Helper()
			if err := k.DropEmpty("nat"); err != nil {
				t.Fatal(err)
			}
		}
		drop() // No table at all.
		restore(t, k, "*nat", ":OWN - [0:0]", "COMMIT")
		drop()
		holds(t, k, "OWN")
		restore(t, k, "*nat", "-X OWN", "-A PREROUTING -j RETURN", "COMMIT")
		drop()
		holds(t, k, "PREROUTING", "-A PREROUTING -j RETURN")
		restore(t, k, "*nat", "-D PREROUTING -j RETURN", "COMMIT")
		drop()
		holds(t, k, "PREROUTING")
		restore(t, k, "*nat", ":OWN - [0:0]", "-A PREROUTING -j OWN", "COMMIT")
		holds(t, k, "PREROUTING", "-A PREROUTING -j OWN")
	})
}

// TestDropEmptyIsComplete: an empty table goes, and stays while a chain does
// more than let pass, or something native is in it.
func TestDropEmptyIsComplete(t *testing.T) {
	for name, c := range map[string]struct {
		also  []string
		stays bool
	}{
		"empty":  {nil, false},
		"policy": {[]string{"iptables-nft", "-t", "raw", "-P", "OUTPUT", "DROP"}, true},
		"set":    {[]string{"nft", "add", "set", "ip", "raw", "foreign", "{", "type", "ipv4_addr;", "}"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			k := open(t, netfilter.NFT, family.V4)
			restore(t, k, "*raw", ":OWN - [0:0]", "-A PREROUTING -j OWN", "COMMIT", "*raw", "-D PREROUTING -j OWN", "-X OWN", "COMMIT")
			if c.also != nil {
				if out, err := exec.Command(c.also[0], c.also[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			if err := k.DropEmpty("raw"); err != nil {
				t.Fatal(err)
			}
			tables, err := iptables.NFTables(family.V4)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(tables, "raw") != c.stays {
				t.Errorf("tables %q, want raw among them: %v", tables, c.stays)
			}
		})
	}
}

func TestNFTables(t *testing.T) {
	space.New(t)
	if out, err := exec.Command("nft", "add", "table", "ip6", "kube-proxy").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for f, want := range map[family.Family][]string{family.V4: nil, family.V6: {"kube-proxy"}} {
		got, err := iptables.NFTables(f)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s tables (-want +got):\n%s", f, d)
		}
	}
}

func TestOpenWithoutCommands(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, b := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
		if _, err := iptables.Open(b, family.V6); !errors.Is(err, iptables.ErrNoCommand) {
			t.Errorf("%s: %v, want ErrNoCommand", b, err)
		}
	}
}

// TestOpenPlain: where only "iptables" is installed, it serves the backend that
// it says it is of.
func TestOpenPlain(t *testing.T) {
	nft, err := exec.LookPath("iptables-nft")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"iptables", "iptables-restore"} {
		if err := os.Symlink(nft, dir+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	if _, err := iptables.Open(netfilter.NFT, family.V4); err != nil {
		t.Errorf("nft: %v", err)
	}
	if _, err := iptables.Open(netfilter.Legacy, family.V4); !errors.Is(err, iptables.ErrNoCommand) {
		t.Errorf("legacy: %v, want ErrNoCommand", err)
	}
}
