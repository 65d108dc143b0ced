// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// What iptables prints, beside exit code 1, which it has for other faults too. The
// nft commands say the same of a chain that isn't there.
const (
	saysNoChain    = "No chain/target/match by that name"
	saysUnreadable = "is incompatible, use 'nft' tool"
)

// isLack says whether a complaint is about something that iptables or the kernel
// lacks, or refuses to this process: in iptables' own words, or by the kernel's error.
func isLack(complaint string) bool {
	complaint = strings.ToLower(complaint)
	return slices.ContainsFunc([]string{
		"couldn't load", "unknown option", strings.ToLower(saysNoChain), "missing kernel module", "not loaded", "doesn't exist",
		"does not exist", "no such file or directory", "not supported", "invalid argument", "not permitted", "permission denied",
		// It doesn't say why; without the capability NET_RAW it can't.
		"can't open socket to ipset",
	}, func(text string) bool { return strings.Contains(complaint, text) })
}

// List returns the rules of one chain as iptables-save writes them, "-A CHAIN"
// included. ErrNotFound without the chain; the kernel's own chains always are,
// without rules until their table is first used. ErrUnreadable when nft made rules
// in it that iptables can't show, dump.ErrTooMuch when there are more than MaxRules, and
// ErrBusy when another process held the lock. On any error but ErrNotFound nothing
// is known of the chain's rules.
func (t *Tables) List(ctx context.Context, table, chain string) ([]string, error) {
	rules, err := t.rules(ctx, table, chain)
	if err != nil {
		return nil, fmt.Errorf("list %s %s chain %s of table %s: %w", t.family, t.backend, chain, table, err)
	}
	return rules, nil
}

func (t *Tables) rules(ctx context.Context, table, chain string, options ...string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	there, err := t.exists(table, chain)
	switch {
	case err != nil:
		return nil, err
	case !there && builtin(chain):
		return nil, nil
	case !there:
		return nil, ErrNotFound
	}
	out, err := t.run(ctx, "", t.list, append(options, "-t", table, "-S", chain)...)
	if err != nil {
		return nil, t.classify(err, table, chain)
	}
	// The first line is the chain itself: -N, or -P with its policy.
	rules := slices.DeleteFunc(strings.Split(out, "\n"), func(l string) bool { return !strings.HasPrefix(l, "-A ") })
	if len(rules) > MaxRules {
		return nil, dump.ErrTooMuch
	}
	return rules, nil
}

// classify says what a failed listing means.
func (t *Tables) classify(err error, table, chain string) error {
	var f *failure
	if !errors.As(err, &f) || f.code != exitOther {
		return err
	}
	if t.backend == netfilter.Legacy {
		if strings.Contains(f.stderr, saysNoChain) {
			return ErrNotFound
		}
		return err
	}
	if !strings.Contains(f.stderr, saysUnreadable) {
		return err
	}
	// The chain may have gone meanwhile.
	there, e := t.exists(table, chain)
	switch {
	case e != nil:
		return errors.Join(err, e)
	case !there:
		return ErrNotFound
	}
	return ErrUnreadable
}

// exists says whether the chain may be there, without setting up its table:
// iptables-legacy makes any table it is asked about. dump.ErrTooMuch when it must not
// be listed.
func (t *Tables) exists(table, chain string) (bool, error) {
	if t.backend == netfilter.NFT {
		return t.nftChain(table, chain)
	}
	names, err := legacyTables(t.family)
	if err != nil || !slices.Contains(names, table) {
		return false, err
	}
	return true, t.checkTable(table)
}

// legacyTables names the tables that the legacy backend has set up.
func legacyTables(f family.Family) ([]string, error) {
	file := family.Pick(f, "ip_tables_names", "ip6_tables_names")
	names, err := os.ReadFile("/proc/thread-self/net/" + file)
	if errors.Is(err, os.ErrNotExist) {
		// The kernel has no such backend.
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list legacy tables: %w", err)
	}
	return strings.Fields(string(names)), nil
}

// builtin says whether the kernel has the chain by itself.
func builtin(chain string) bool {
	return slices.Contains([]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}, chain)
}
