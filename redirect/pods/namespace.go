// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"net/netip"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// namespace is what Pods needs of a pod's network namespace. See netns.Namespace.
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

// netnsFinder is a finder of real namespaces.
type netnsFinder struct{ *netns.Finder }

// Find is as netns.Finder.Find.
func (s netnsFinder) Find(want []netns.Wanted) (map[string]namespace, map[string]error) {
	found, missing := s.Finder.Find(want)
	all := make(map[string]namespace, len(found))
	for uid, ns := range found {
		all[uid] = ns
	}
	return all, missing
}

// All is as netns.Finder.All.
func (s netnsFinder) All() ([]namespace, error) {
	found, err := s.Finder.All()
	all := make([]namespace, 0, len(found))
	for _, ns := range found {
		all = append(all, ns)
	}
	return all, err
}

// podKernels opens the kernel of network namespaces that are not the process's. Each
// has a single socket: calls hold it for one message only, so that urgent ones
// need none of their own.
type podKernels struct {
	// tables work wherever the thread that calls them is.
	tables []apply.Tables
}

// open opens the kernel of a namespace. It has no Network.
func (i podKernels) open(ns namespace) (apply.Kernel, error) {
	var sets *ipset.Sets
	err := ns.Do(func() (err error) {
		sets, err = ipset.Open()
		return err
	})
	if err != nil {
		if sets != nil {
			err = errors.Join(err, sets.Close())
		}
		return apply.Kernel{}, err
	}
	k := apply.Kernel{Sets: sets, Urgent: sets}
	for _, t := range i.tables {
		k.Tables = append(k.Tables, podTables{t, ns})
	}
	return k, nil
}

// podTables is Tables of another network namespace.
type podTables struct {
	apply.Tables
	ns namespace
}

// List is as Tables.List.
func (e podTables) List(ctx context.Context, table, chain string) ([]string, error) {
	return doIn(e.ns, func() ([]string, error) { return e.Tables.List(ctx, table, chain) })
}

// Restore is as Tables.Restore.
func (e podTables) Restore(ctx context.Context, text string) error {
	return e.ns.Do(func() error { return e.Tables.Restore(ctx, text) })
}

// Test is as Tables.Test.
func (e podTables) Test(ctx context.Context, text string) error {
	return e.ns.Do(func() error { return e.Tables.Test(ctx, text) })
}

// Generation is as Tables.Generation.
func (e podTables) Generation() (uint32, error) { return doIn(e.ns, e.Tables.Generation) }

// Outputs is as Tables.Outputs.
func (e podTables) Outputs() ([]string, error) { return doIn(e.ns, e.Tables.Outputs) }

// DropEmpty is as Tables.DropEmpty.
func (e podTables) DropEmpty(table string) error {
	return e.ns.Do(func() error { return e.Tables.DropEmpty(table) })
}

// doIn is Do for what has a result.
func doIn[T any](ns namespace, fn func() (T, error)) (v T, err error) {
	err = ns.Do(func() (err error) {
		v, err = fn()
		return err
	})
	return v, err
}
