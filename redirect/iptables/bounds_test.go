// SPDX-License-Identifier: Apache-2.0

package iptables_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// TestTooManyRules: what nobody needs is not read, however many there are.
func TestTooManyRules(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		fill(t, k, iptables.MaxRules)
		if rules, err := k.List(t.Context(), "nat", "OWN"); err != nil || len(rules) != iptables.MaxRules {
			t.Errorf("%d rules, %v; want %d", len(rules), err, iptables.MaxRules)
		}
		restore(t, k, "*nat", "-A OWN -j RETURN", "COMMIT")
		if rules, err := k.List(t.Context(), "nat", "OWN"); !errors.Is(err, dump.ErrTooMuch) {
			t.Errorf("%d rules, %v; want ErrTooMuch", len(rules), err)
		}
		// Other chains can be listed, and ours be emptied.
		holds(t, k, "PREROUTING")
		restore(t, k, "*nat", ":OWN - [0:0]", "COMMIT")
		holds(t, k, "OWN")
	})
}

// fill makes chain OWN of table nat and puts so many rules into it.
func fill(t *testing.T, k kernel, rules int) {
	t.Helper()
	restore(t, k, "*nat", ":OWN - [0:0]", "COMMIT")
	for chunk := range slices.Chunk(slices.Repeat([]string{"-A OWN -j RETURN"}, rules), 1000) {
		restore(t, k, slices.Concat([]string{"*nat"}, chunk, []string{"COMMIT"})...)
	}
}

// TestHugeTable: a pod's table with any number of rules costs neither time nor
// memory. (It takes nft's commands a minute to write 300,000.)
func TestHugeTable(t *testing.T) {
	const quickly, little = time.Second, 16 << 20
	rules := map[netfilter.Backend]int{netfilter.NFT: 50_000, netfilter.Legacy: 300_000}
	for _, b := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
		t.Run(string(b), func(t *testing.T) {
			trusted := open(t, b, family.V4)
			if b == netfilter.NFT {
				fill(t, trusted, rules[b])
			} else {
				restore(t, trusted, slices.Concat([]string{"*nat", ":OWN - [0:0]"},
					slices.Repeat([]string{"-A OWN -p tcp -m tcp --dport 80 -j RETURN"}, rules[b]), []string{"COMMIT"})...)
			}
			k := trusted.Untrusted()
			for what, do := range map[string]func() error{
				"list":           func() error { return second(k.List(t.Context(), "nat", "OWN")) },
				"list a small":   func() error { return second(k.List(t.Context(), "nat", "OUTPUT")) },
				"generation":     func() error { return second(k.Generation()) },
				"outputs":        func() error { return second(k.Outputs()) },
				"restore beside": func() error { return k.Restore(t.Context(), "*nat\n:SMALL - [0:0]\n-A SMALL -j RETURN\nCOMMIT\n") },
				"test beside":    func() error { return k.Test(t.Context(), "*nat\n-A OUTPUT -j RETURN\nCOMMIT\n") },
			} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				begin := time.Now()
				err := do()
				took := time.Since(begin)
				runtime.ReadMemStats(&after)
				t.Logf("%s: %v, %d KiB, %v", what, took, (after.TotalAlloc-before.TotalAlloc)>>10, err)
				if took > quickly || after.TotalAlloc-before.TotalAlloc > little {
					t.Errorf("%s took %v and %d KiB", what, took, (after.TotalAlloc-before.TotalAlloc)>>10)
				}
				// Commands may read whole tables, and these calls run none.
				refused := what != "outputs" && (b == netfilter.Legacy || what != "generation")
				if errors.Is(err, dump.ErrTooMuch) != refused || !refused && err != nil {
					t.Errorf("%s: %v, want ErrTooMuch: %v", what, err, refused)
				}
			}
		})
	}
}

// TestManyChains: a listing of chains is bounded too.
func TestManyChains(t *testing.T) {
	k := open(t, netfilter.NFT, family.V4)
	var chains []string
	for i := range 40_000 {
		chains = append(chains, fmt.Sprintf(":C%d - [0:0]", i))
	}
	for chunk := range slices.Chunk(chains, 500) {
		restore(t, k, slices.Concat([]string{"*nat"}, chunk, []string{"COMMIT"})...)
	}
	for what, err := range map[string]error{"outputs": second(k.Outputs()), "drop": k.DropEmpty("raw")} {
		if what == "outputs" && !errors.Is(err, dump.ErrTooMuch) || what == "drop" && err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestBusy: another process holds the lock of the legacy tables.
func TestBusy(t *testing.T) {
	check := func(t *testing.T, k kernel) {
		for what, err := range map[string]error{
			"list":    second(k.List(t.Context(), "nat", "PREROUTING")),
			"restore": k.Restore(t.Context(), "*nat\n:OTHER - [0:0]\nCOMMIT\n"),
		} {
			if !errors.Is(err, iptables.ErrBusy) {
				t.Errorf("%s: %v, want ErrBusy", what, err)
			}
		}
	}
	t.Run("fake", func(t *testing.T) {
		f := iptables.NewFake(netfilter.Legacy, family.V4)
		f.Busy = func() bool { return true }
		check(t, f)
	})
	t.Run("kernel", func(t *testing.T) {
		k := open(t, netfilter.Legacy, family.V4)
		restore(t, k, "*nat", ":OWN - [0:0]", "COMMIT")
		lock, err := os.OpenFile("/run/xtables.lock", os.O_RDWR|os.O_CREATE, 0o600)
		if err == nil {
			err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		}
		if err != nil {
			t.Fatal(err)
		}
		check(t, k)
		// It is said in time, too, when there is less of it.
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := k.List(ctx, "nat", "PREROUTING"); !errors.Is(err, iptables.ErrBusy) {
			t.Errorf("List within three seconds: %v, want ErrBusy", err)
		}
		if err := lock.Close(); err != nil {
			t.Fatal(err)
		}
		holds(t, k, "OWN")
	})
}

// TestFailures: a command that fails says nothing about the rules, unless it says
// so. The chain that is asked for is there all the time.
func TestFailures(t *testing.T) {
	for _, tc := range []struct {
		name    string
		backend netfilter.Backend
		script  string
		want    error
	}{
		{"no memory", netfilter.NFT, "echo out of memory >&2; exit 1", nil},
		{"rules of nft", netfilter.NFT, "echo \"chain \\`PREROUTING' in table \\`nat' is incompatible, use 'nft' tool.\" >&2; exit 1", iptables.ErrUnreadable},
		{"not permitted", netfilter.NFT, "exit 4", nil},
		{"killed", netfilter.NFT, "kill -9 $$", nil},
		{"no end", netfilter.NFT, "while :; do echo -A PREROUTING -j ACCEPT; done", dump.ErrTooMuch},
		{"no end of complaints", netfilter.NFT, "while :; do echo no >&2; done", dump.ErrTooMuch},
		{"no memory", netfilter.Legacy, "echo 'iptables: Memory allocation problem.' >&2; exit 1", nil},
		{"no chain", netfilter.Legacy, "echo 'iptables: No chain/target/match by that name.' >&2; exit 1", iptables.ErrNotFound},
		{"changed meanwhile", netfilter.Legacy, "exit 4", iptables.ErrBusy},
		{"no such option", netfilter.Legacy, "exit 2", nil},
	} {
		t.Run(string(tc.backend)+" "+tc.name, func(t *testing.T) {
			restore(t, open(t, tc.backend, family.V4), "*nat", "-A PREROUTING -j RETURN", "COMMIT")
			k := script(t, tc.backend, tc.script)
			rules, err := k.List(t.Context(), "nat", "PREROUTING")
			if err == nil {
				t.Fatalf("no error, but %q", rules)
			}
			for _, is := range []error{iptables.ErrNotFound, iptables.ErrUnreadable, iptables.ErrBusy, dump.ErrTooMuch} {
				if errors.Is(err, is) != errors.Is(tc.want, is) {
					t.Errorf("%v, want %v", err, tc.want)
				}
			}
		})
	}
}

// TestUnsupported: what iptables or the kernel lacks is told from a command that failed.
func TestUnsupported(t *testing.T) {
	on(t, func(t *testing.T, k kernel) {
		for _, rule := range []string{"-A OUTPUT -j NOSUCH", "-A OUTPUT -m set --match-set nosuch dst -j ACCEPT"} {
			text := "*nat\n" + rule + "\nCOMMIT\n"
			if err := k.Restore(t.Context(), text); !errors.Is(err, iptables.ErrUnsupported) {
				t.Errorf("Restore %s: %v, want ErrUnsupported", rule, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := k.Test(ctx, "*nat\n-A OUTPUT -j ACCEPT\nCOMMIT\n"); err == nil || errors.Is(err, iptables.ErrUnsupported) {
			t.Errorf("Test that was ended: %v", err)
		}
	})
	for complaint, want := range map[string]bool{
		"iptables-restore v1.8.9 (nf_tables): Couldn't load match `set':No such file or directory": true,
		"Warning: Extension set revision 0 not supported, missing kernel module?":                  true,
		"iptables: Failed to initialize nft: Protocol not supported":                               true,
		"iptables: Failed to initialize nft: Too many open files":                                  false,
		"can't initialize iptables table `nat': Table does not exist (do you need to insmod?)":     true,
		"line 4: RULE_APPEND failed (No such file or directory): rule in chain OUTPUT":             true,
		"line 4: RULE_APPEND failed (Cannot allocate memory): rule in chain OUTPUT":                false,
		"iptables: Memory allocation problem.":                                                     false,
		"Can't open socket to ipset.":                                                              true,
	} {
		t.Run(complaint, func(t *testing.T) {
			open(t, netfilter.NFT, family.V4)
			t.Setenv("COMPLAINT", complaint)
			k := script(t, netfilter.NFT, `echo "$COMPLAINT" >&2; exit 2`)
			if err := k.Test(t.Context(), "*nat\nCOMMIT\n"); err == nil || errors.Is(err, iptables.ErrUnsupported) != want {
				t.Errorf("%v, want ErrUnsupported: %v", err, want)
			}
		})
	}
}

// TestOpenFailures: only commands that are not there, or of another backend, are missing.
func TestOpenFailures(t *testing.T) {
	for what, tc := range map[string]struct {
		script string
		want   bool
	}{
		"other backend": {"echo 'iptables v1.8.9 (nf_tables)'", true}, "unusable": {"exit 127", true}, "killed": {"kill -9 $$", false}, "none": {"", true},
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			if tc.script != "" {
				if err := os.WriteFile(dir+"/iptables", []byte("#!/bin/sh\n"+tc.script+"\n"), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", dir)
			if _, err := iptables.Open(netfilter.Legacy, family.V4); err == nil || errors.Is(err, iptables.ErrNoCommand) != tc.want {
				t.Errorf("%v, want ErrNoCommand: %v", err, tc.want)
			}
		})
	}
}

// script opens commands that are this script instead.
func script(t *testing.T, b netfilter.Backend, text string) *iptables.Tables {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"iptables-" + string(b), "iptables-" + string(b) + "-restore"} {
		if err := os.WriteFile(dir+"/"+name, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	k, err := iptables.Open(b, family.V4)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func second[T any](_ T, err error) error { return err }
