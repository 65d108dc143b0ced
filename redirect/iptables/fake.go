// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Fake has tables in memory. It takes the commands this project writes, and
// refuses of them what iptables-restore refuses; the contract test runs on both.
type Fake struct {
	// Natives is what Outputs answers.
	Natives []string
	// SetExists says whether an ipset is there; nil for any.
	SetExists func(set string) bool
	// Busy says whether another process holds the lock; nil for never. Of the nft
	// backend nobody asks.
	Busy func() bool

	backend netfilter.Backend
	family  family.Family
	mu      sync.Mutex
	// tables has chains by table, and a chain's rules as "-A CHAIN ..." lines.
	tables     map[string]map[string][]string
	generation uint32
}

// NewFake makes a kernel without rules.
func NewFake(b netfilter.Backend, f family.Family) *Fake {
	t := map[string]map[string][]string{}
	for table, chains := range map[string][]string{
		"raw":    {"PREROUTING", "OUTPUT"},
		"mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
		"nat":    {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
		"filter": {"INPUT", "FORWARD", "OUTPUT"},
	} {
		t[table] = map[string][]string{}
		for _, c := range chains {
			t[table][c] = nil
		}
	}
	return &Fake{backend: b, family: f, tables: t, generation: 1}
}

// Backend is the backend it was made for.
func (f *Fake) Backend() netfilter.Backend { return f.backend }

// Family is the family it was made for.
func (f *Fake) Family() family.Family { return f.family }

// List is as Tables.List.
func (f *Fake) List(ctx context.Context, table, chain string) ([]string, error) {
	err := f.usable(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	rules, there := f.tables[table][chain]
	switch {
	case err != nil:
	case !there:
		err = ErrNotFound
	case len(rules) > MaxRules:
		err = dump.ErrTooMuch
	default:
		return slices.Clone(rules), nil
	}
	return nil, fmt.Errorf("list %s %s chain %s of table %s: %w", f.family, f.backend, chain, table, err)
}

// usable says why a command can't do anything now.
func (f *Fake) usable(ctx context.Context) error {
	if f.backend == netfilter.Legacy && f.Busy != nil && f.Busy() {
		return ErrBusy
	}
	return ctx.Err()
}

// Generation is as Tables.Generation.
func (f *Fake) Generation() (uint32, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.backend != netfilter.NFT {
		return 0, nil
	}
	return f.generation, nil
}

// Outputs is as Tables.Outputs.
func (f *Fake) Outputs() ([]string, error) { return f.Natives, nil }

// DropEmpty is as Tables.DropEmpty: of an empty table nothing is to be seen,
// whether it is there or not.
func (f *Fake) DropEmpty(string) error { return nil }

// References counts the rules that refer to an ipset.
func (f *Fake) References(set string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, chains := range f.tables {
		for _, rules := range chains {
			for _, r := range rules {
				if slices.Contains(setsOf(r), set) {
					n++
				}
			}
		}
	}
	return n
}

// Restore is as Tables.Restore.
func (f *Fake) Restore(ctx context.Context, text string) error { return f.feed(ctx, text, true) }

// Test is as Tables.Test.
func (f *Fake) Test(ctx context.Context, text string) error { return f.feed(ctx, text, false) }

func (f *Fake) feed(ctx context.Context, text string, write bool) error {
	if err := f.usable(ctx); err != nil {
		return fmt.Errorf("restore %s %s tables: %w", f.family, f.backend, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var table string
	var draft map[string][]string
	for i, line := range strings.Split(text, "\n") {
		var err error
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "*"):
			table = line[1:]
			if f.tables[table] == nil {
				err = fmt.Errorf("no table %q", table)
			}
			draft = maps.Clone(f.tables[table])
		case line == "COMMIT":
			if err = f.check(draft); err == nil && write {
				f.tables[table] = draft
				f.generation++
			}
		case draft == nil:
			err = fmt.Errorf("%q is outside of a table", line)
		default:
			err = command(draft, line)
		}
		if err != nil {
			return fmt.Errorf("restore %s %s tables: %w: %s", f.family, f.backend, ErrUnsupported, explain(fmt.Sprintf("line %d failed: %v", i+1, err), text))
		}
	}
	return nil
}

// command does one line to the chains of a table.
func command(chains map[string][]string, line string) error {
	if strings.HasPrefix(line, ":") {
		chains[strings.Fields(line[1:])[0]] = nil
		return nil
	}
	verb, rest, _ := strings.Cut(line, " ")
	chain, spec, _ := strings.Cut(rest, " ")
	rules, there := chains[chain]
	if !there {
		return fmt.Errorf("no chain %s", chain)
	}
	switch verb {
	case "-A":
		chains[chain] = append(slices.Clip(rules), "-A "+chain+" "+spec)
	case "-I":
		at, after, ok := strings.Cut(spec, " ")
		n, err := strconv.Atoi(at)
		if !ok || err != nil || n < 1 || n > len(rules)+1 {
			return fmt.Errorf("no place %q in chain %s", at, chain)
		}
		chains[chain] = slices.Insert(slices.Clone(rules), n-1, "-A "+chain+" "+after)
	case "-D":
		i := slices.Index(rules, "-A "+chain+" "+spec)
		if i < 0 {
			return fmt.Errorf("no such rule in chain %s", chain)
		}
		chains[chain] = slices.Delete(slices.Clone(rules), i, i+1)
	case "-F":
		chains[chain] = nil
	case "-X":
		if builtin(chain) || len(rules) > 0 {
			return fmt.Errorf("chain %s can't be deleted", chain)
		}
		delete(chains, chain)
	default:
		return fmt.Errorf("unknown command %s", verb)
	}
	return nil
}

// check refuses a table with rules that lead to what is not there.
func (f *Fake) check(chains map[string][]string) error {
	for _, rules := range chains {
		for _, r := range rules {
			target := after(r, "-j")
			if _, there := chains[target]; !there && !targets(target) {
				return fmt.Errorf("no chain or target %q", target)
			}
			for _, set := range setsOf(r) {
				if f.SetExists != nil && !f.SetExists(set) {
					return fmt.Errorf("set %s doesn't exist", set)
				}
			}
		}
	}
	return nil
}

func targets(name string) bool {
	known := []string{"ACCEPT", "DROP", "RETURN", "REJECT", "DNAT", "REDIRECT", "MARK", "CT", "TPROXY", "SET"}
	return slices.Contains(known, name)
}

func setsOf(rule string) []string {
	var names []string
	words := strings.Fields(rule)
	for i, w := range words[:len(words)-1] {
		if w == "--match-set" || w == "--add-set" {
			names = append(names, words[i+1])
		}
	}
	return names
}

func after(rule, word string) string {
	words := strings.Fields(rule)
	if i := slices.Index(words, word); i >= 0 && i+1 < len(words) {
		return words[i+1]
	}
	return ""
}
