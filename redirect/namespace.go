// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"context"
	"errors"
	"net/netip"

	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// namespace is what Pods needs of a pod's network namespace. See netns.Space.
type namespace interface {
	Path() string
	Inode() uint64
	Do(fn func() error) error
	Addresses() ([]netip.Addr, error)
	Check(ips []netip.Addr) error
	Close() error
}

// finder is what Pods needs to find them. See netns.Finder.
type finder interface {
	Find(want []netns.Wanted) (found map[string]namespace, missing map[string]error)
	Release(uid string)
	All() ([]namespace, error)
}

// spaces is a finder of real namespaces.
type spaces struct{ *netns.Finder }

// Find is as netns.Finder.Find.
func (s spaces) Find(want []netns.Wanted) (map[string]namespace, map[string]error) {
	found, missing := s.Finder.Find(want)
	all := make(map[string]namespace, len(found))
	for uid, ns := range found {
		all[uid] = ns
	}
	return all, missing
}

// All is as netns.Finder.All.
func (s spaces) All() ([]namespace, error) {
	found, err := s.Finder.All()
	all := make([]namespace, 0, len(found))
	for _, ns := range found {
		all = append(all, ns)
	}
	return all, err
}

// insider opens the kernel of network namespaces that are not the process's. One
// costs a single socket: each call holds it for one message only, so that what
// is urgent needs none of its own.
type insider struct {
	// tables work wherever the thread that calls them is.
	tables []Tables
}

// open opens the kernel of a namespace. It has no Network.
func (i insider) open(ns namespace) (Kernel, error) {
	var sets *ipset.Sets
	err := ns.Do(func() (err error) {
		sets, err = ipset.Open()
		return err
	})
	if err != nil {
		if sets != nil {
			err = errors.Join(err, sets.Close())
		}
		return Kernel{}, err
	}
	k := Kernel{Sets: sets, Urgent: sets}
	for _, t := range i.tables {
		k.Tables = append(k.Tables, entered{t, ns})
	}
	return k, nil
}

// entered is Tables of another network namespace.
type entered struct {
	Tables
	ns namespace
}

// List is as Tables.List.
func (e entered) List(ctx context.Context, table, chain string) ([]string, error) {
	return within(e.ns, func() ([]string, error) { return e.Tables.List(ctx, table, chain) })
}

// Restore is as Tables.Restore.
func (e entered) Restore(ctx context.Context, text string) error {
	return e.ns.Do(func() error { return e.Tables.Restore(ctx, text) })
}

// Test is as Tables.Test.
func (e entered) Test(ctx context.Context, text string) error {
	return e.ns.Do(func() error { return e.Tables.Test(ctx, text) })
}

// Generation is as Tables.Generation.
func (e entered) Generation() (uint32, error) { return within(e.ns, e.Tables.Generation) }

// Outputs is as Tables.Outputs.
func (e entered) Outputs() ([]string, error) { return within(e.ns, e.Tables.Outputs) }

// DropEmpty is as Tables.DropEmpty.
func (e entered) DropEmpty(table string) error {
	return e.ns.Do(func() error { return e.Tables.DropEmpty(table) })
}

// within is Do for what has a result.
func within[T any](ns namespace, fn func() (T, error)) (v T, err error) {
	err = ns.Do(func() (err error) {
		v, err = fn()
		return err
	})
	return v, err
}
