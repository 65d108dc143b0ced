// SPDX-License-Identifier: Apache-2.0

package pods

import (
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

func (s netnsFinder) Find(want []netns.Wanted) (map[string]namespace, map[string]error) {
	found, missing := s.Finder.Find(want)
	all := make(map[string]namespace, len(found))
	for uid, ns := range found {
		all[uid] = ns
	}
	return all, missing
}

func (s netnsFinder) All() ([]namespace, error) {
	found, err := s.Finder.All()
	all := make([]namespace, 0, len(found))
	for _, ns := range found {
		all = append(all, ns)
	}
	return all, err
}

// kernels opens the kernel of network namespaces that are not the process's; it has
// no Network. Each has a single socket: calls hold it for one message only, so that
// urgent ones need none of their own. tables work wherever the thread that calls
// them is.
func kernels(tables []apply.Tables) func(ns namespace) (apply.Kernel, error) {
	return func(ns namespace) (apply.Kernel, error) {
		var sets *ipset.Sets
		err := ns.Do(func() (err error) {
			sets, err = ipset.Open()
			return err
		})
		if err != nil {
			return apply.Kernel{}, err
		}
		bounded := sets.Untrusted()
		k := apply.Kernel{Sets: bounded, Urgent: bounded}
		for _, t := range tables {
			k.Tables = append(k.Tables, apply.Around(t, ns.Do))
		}
		return k, nil
	}
}
