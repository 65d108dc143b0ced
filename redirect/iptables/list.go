// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/coreos/go-iptables/iptables"

	"github.com/nodevoy/nodevoy/redirect/family"
)

// List returns the rules of one chain as iptables-save writes them, "-A CHAIN"
// included. ErrNotFound without the chain; the kernel's own chains always are,
// without rules until their table is first used. ErrUnreadable when iptables
// can't show them all: then nothing is known about the chain.
func (t *Tables) List(ctx context.Context, table, chain string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	there, err := t.exists(table, chain)
	if err != nil {
		return nil, t.failed(table, chain, err)
	}
	if !there {
		if builtin(chain) {
			return nil, nil
		}
		return nil, t.failed(table, chain, ErrNotFound)
	}
	lines, err := t.list.List(table, chain)
	var failure *iptables.Error
	switch {
	case errors.As(err, &failure) && failure.ExitStatus() == 1 && t.backend == Legacy:
		return nil, t.failed(table, chain, ErrNotFound)
	case errors.As(err, &failure) && failure.ExitStatus() == 1:
		return nil, t.failed(table, chain, t.unreadable(table, chain))
	case err != nil:
		return nil, t.failed(table, chain, err)
	}
	// The first line is the chain itself: -N, or -P with its policy.
	return slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "-A ") }), nil
}

// unreadable tells a chain that is gone meanwhile from one that can't be read:
// the command says the same of both.
func (t *Tables) unreadable(table, chain string) error {
	there, err := t.exists(table, chain)
	if err == nil && !there {
		return ErrNotFound
	}
	return errors.Join(ErrUnreadable, err)
}

// exists says whether the chain may be there, without setting up its table:
// iptables-legacy makes any table it is asked about.
func (t *Tables) exists(table, chain string) (bool, error) {
	if t.backend == NFT {
		return nftChain(t.family, table, chain)
	}
	names, err := os.ReadFile("/proc/thread-self/net/" + namesFile(t.family))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return slices.Contains(strings.Fields(string(names)), table), err
}

func namesFile(f family.Family) string {
	if f == family.V6 {
		return "ip6_tables_names"
	}
	return "ip_tables_names"
}

func (t *Tables) failed(table, chain string, err error) error {
	return fmt.Errorf("list %s %s chain %s of table %s: %w", t.family, t.backend, chain, table, err)
}

// builtin says whether the kernel has the chain by itself.
func builtin(chain string) bool {
	switch chain {
	case "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING":
		return true
	}
	return false
}
