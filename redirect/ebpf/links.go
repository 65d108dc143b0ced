// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpAttempts bounds how often a listing is begun anew because something
// changed while it ran.
const dumpAttempts = 10

// The attachment types of netkit, which package unix hasn't.
const (
	netkitPrimary = 54
	netkitPeer    = 55
)

// OnPods are the programs on the interfaces by which pods are connected (veth
// and netkit) in the calling thread's network namespace, sorted by interface.
// With ErrUnknown there may be others that can't be seen.
func OnPods() ([]Program, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	defer handle.Close()
	links, err := handle.LinkList()
	for i := 1; errors.Is(err, netlink.ErrDumpInterrupted) && i < dumpAttempts; i++ {
		links, err = handle.LinkList()
	}
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	slices.SortFunc(links, func(x, y netlink.Link) int { return x.Attrs().Index - y.Attrs().Index })
	var found []Program
	var unseen error
	for _, l := range links {
		hooks := attachments(l.Type())
		if hooks == nil {
			continue
		}
		found = append(found, filters(handle, l)...)
		for _, h := range hooks {
			names, err := query(attached{target: l.Attrs().Index, hook: h.kind})
			if err != nil && !errors.Is(err, unix.ENODEV) {
				unseen = fmt.Errorf("%w what is attached by %s: %w", ErrUnknown, h.name, err)
			}
			for _, name := range names {
				found = append(found, Program{Link: l.Attrs().Name, Hook: h.name, Name: name})
			}
		}
	}
	return found, unseen
}

// hook is a place to attach a program to.
type hook struct {
	kind uint32
	name string
}

// attachments are the hooks of a type of interface, other than tc's filters; nil
// for types that don't lead to pods.
func attachments(linkType string) []hook {
	tcx := []hook{{unix.BPF_TCX_INGRESS, "tcx ingress"}, {unix.BPF_TCX_EGRESS, "tcx egress"}}
	switch linkType {
	case "veth":
		return tcx
	case "netkit":
		return append(tcx, hook{netkitPrimary, "netkit primary"}, hook{netkitPeer, "netkit peer"})
	}
	return nil
}

// filters are the programs that are tc filters of an interface. One that is gone
// meanwhile has none.
func filters(handle *netlink.Handle, l netlink.Link) []Program {
	var found []Program
	for _, parent := range []struct {
		id   uint32
		name string
	}{{netlink.HANDLE_MIN_INGRESS, "tc ingress"}, {netlink.HANDLE_MIN_EGRESS, "tc egress"}} {
		// An error means that there is no place for filters.
		list, _ := handle.FilterList(l, parent.id)
		for _, f := range list {
			if b, ok := f.(*netlink.BpfFilter); ok {
				found = append(found, Program{Link: l.Attrs().Name, Hook: parent.name, Name: b.Name})
			}
		}
	}
	return found
}
