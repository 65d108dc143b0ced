// SPDX-License-Identifier: Apache-2.0

package ebpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// OnPods are the programs on the interfaces by which pods are connected (veth
// and netkit) in the calling thread's network namespace, sorted by interface.
// With ErrUnknown there may be others that can't be seen.
func OnPods() ([]Program, error) {
	handle, err := netlink.NewHandleWithOptions(netlink.HandleOptions{RetryInterrupted: true}, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	defer handle.Close()
	links, err := handle.LinkList()
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
		programs, err := filters(handle, l)
		if err != nil {
			unseen = fmt.Errorf("%w the filters of tc: %w", ErrUnknown, err)
		}
		found = append(found, programs...)
		for _, h := range hooks {
			names, err := attached(l.Attrs().Index, h, 0)
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

// attachments are the hooks of a type of interface, other than tc's filters; nil
// for types that don't lead to pods.
func attachments(linkType string) []hook {
	tcx := []hook{{ebpf.AttachTCXIngress, "tcx ingress"}, {ebpf.AttachTCXEgress, "tcx egress"}}
	switch linkType {
	case "veth":
		return tcx
	case "netkit":
		return append(tcx, hook{ebpf.AttachNetkitPrimary, "netkit primary"}, hook{ebpf.AttachNetkitPeer, "netkit peer"})
	}
	return nil
}

// filters are the programs that are tc filters of an interface. One that is gone
// meanwhile has none.
func filters(handle *netlink.Handle, l netlink.Link) ([]Program, error) {
	var found []Program
	for _, parent := range []struct {
		id   uint32
		name string
	}{{netlink.HANDLE_MIN_INGRESS, "tc ingress"}, {netlink.HANDLE_MIN_EGRESS, "tc egress"}} {
		list, err := handle.FilterList(l, parent.id)
		// EINVAL and ENOENT: there is no place for filters, because nobody made one.
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
			return found, err
		}
		for _, f := range list {
			if b, ok := f.(*netlink.BpfFilter); ok {
				found = append(found, Program{Link: l.Attrs().Name, Hook: parent.name, Name: b.Name})
			}
		}
	}
	return found, nil
}
