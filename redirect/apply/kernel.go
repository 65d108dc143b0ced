// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/route"
)

// Sets is what redirection needs of ipset. See ipset.Sets.
type Sets interface {
	Protocol() (int, error)
	Create(set netfilter.SetSpec) error
	Destroy(set string) error
	Flush(set string) error
	Swap(a, b string) error
	Add(set netfilter.SetSpec, members []netfilter.Member) error
	Delete(set netfilter.SetSpec, members []netfilter.Member) error
	Header(set string) (ipset.Header, error)
	Members(set string) ([]netfilter.Member, error)
	Names() ([]string, error)
}

// Tables is what redirection needs of one iptables backend and family. See
// iptables.Tables.
type Tables interface {
	Backend() netfilter.Backend
	Family() family.Family
	List(ctx context.Context, table, chain string) ([]string, error)
	Restore(ctx context.Context, text string) error
	Test(ctx context.Context, text string) error
	Generation() (uint32, error)
	Outputs() ([]string, error)
	DropEmpty(table string) error
}

// Network is what redirection needs of addresses and routes. See route.Network.
type Network interface {
	Addresses(f family.Family) ([]netip.Addr, error)
	AddAddress(addr netip.Addr) error
	DeleteAddress(addr netip.Addr) error
	AddRule(r netfilter.PolicyRule) error
	DeleteRule(r netfilter.PolicyRule) error
	HasRule(r netfilter.PolicyRule) (bool, error)
	Marks(f family.Family) ([]route.Foreign, error)
	Bridged(f family.Family) (string, error)
}

// Kernel is the node's kernel, or a fake of it.
type Kernel struct {
	Sets Sets
	// Urgent is another way to the same sets, for what can't wait for a long
	// call on Sets.
	Urgent  Sets
	Network Network
	// Tables are those of every backend and family whose commands exist.
	Tables []Tables
}

// OpenKernel opens the kernel of the network namespace the process is in.
func OpenKernel() (Kernel, error) {
	sets, err := ipset.Open()
	if err != nil {
		return Kernel{}, err
	}
	urgent, err := ipset.Open()
	if err != nil {
		return Kernel{}, errors.Join(err, sets.Close())
	}
	network, err := route.Open()
	if err != nil {
		return Kernel{}, errors.Join(err, sets.Close(), urgent.Close())
	}
	tables, err := openTables(func(t *iptables.Tables) *iptables.Tables { return t })
	k := Kernel{Sets: sets, Urgent: urgent, Network: network, Tables: tables}
	if err != nil {
		return Kernel{}, errors.Join(err, k.Close())
	}
	return k, nil
}

// OpenPodTables finds the commands of every backend and family, for the network
// namespaces of pods, which may have any number of rules. They work in that of the
// thread that calls them.
func OpenPodTables() ([]Tables, error) { return openTables((*iptables.Tables).Untrusted) }

func openTables(bounds func(*iptables.Tables) *iptables.Tables) ([]Tables, error) {
	var found []Tables
	for _, b := range []netfilter.Backend{netfilter.NFT, netfilter.Legacy} {
		for _, f := range family.All() {
			t, err := iptables.Open(b, f)
			if errors.Is(err, iptables.ErrNoCommand) {
				continue
			}
			if err != nil {
				return nil, err
			}
			found = append(found, bounds(t))
		}
	}
	return found, nil
}

// Around is tables of which each call that reads or writes is made by do: in another
// network namespace, or watched.
func Around(t Tables, do func(call func() error) error) Tables { return around{t, do} }

type around struct {
	Tables
	do func(call func() error) error
}

func (a around) List(ctx context.Context, table, chain string) ([]string, error) {
	return result(a.do, func() ([]string, error) { return a.Tables.List(ctx, table, chain) })
}

func (a around) Restore(ctx context.Context, text string) error {
	return a.do(func() error { return a.Tables.Restore(ctx, text) })
}

func (a around) Test(ctx context.Context, text string) error {
	return a.do(func() error { return a.Tables.Test(ctx, text) })
}

func (a around) Generation() (uint32, error) { return result(a.do, a.Tables.Generation) }

func (a around) Outputs() ([]string, error) { return result(a.do, a.Tables.Outputs) }

func (a around) DropEmpty(table string) error {
	return a.do(func() error { return a.Tables.DropEmpty(table) })
}

// result is what a call gives that do makes.
func result[T any](do func(call func() error) error, call func() (T, error)) (v T, err error) {
	err = do(func() (err error) {
		v, err = call()
		return err
	})
	return v, err
}

// Close closes the sockets to the kernel. The rules stay.
func (k Kernel) Close() error {
	var errs []error
	parts := []any{k.Sets, k.Network}
	if k.Urgent != k.Sets {
		parts = append(parts, k.Urgent)
	}
	for _, part := range parts {
		if c, ok := part.(interface{ Close() error }); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// TablesOf finds those of one backend and family.
func (k Kernel) TablesOf(b netfilter.Backend, f family.Family) (Tables, error) {
	for _, t := range k.Tables {
		if t.Backend() == b && t.Family() == f {
			return t, nil
		}
	}
	return nil, fmt.Errorf("%s %s tables: %w", f, b, iptables.ErrNoCommand)
}

// ErrBridged says why tproxy can't be used: measured, packets match the rule
// and are then lost.
var ErrBridged = errors.New("bridged frames pass through iptables, which loses what TPROXY takes")

// CheckBridges returns ErrBridged, with the interface, when pods are behind a bridge
// whose frames iptables sees.
func (k Kernel) CheckBridges(families []family.Family) error {
	for _, f := range families {
		port, err := k.Network.Bridged(f)
		if err != nil {
			return err
		}
		if port != "" {
			return fmt.Errorf("interface %s: %w", port, ErrBridged)
		}
	}
	return nil
}
