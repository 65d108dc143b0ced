// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routes are those of the calling thread's namespace, the node's. Most CNI plugins
// route each pod's address to the veth that leads into the pod; no pod can change
// that.
type routes struct {
	handle *netlink.Handle
	// numbers are the kernel's of namespaces, as seen from the node's.
	numbers map[location]int
}

func newRoutes() (*routes, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	return &routes{h, map[location]int{}}, nil
}

func (r *routes) close() { r.handle.Close() }

// narrow leaves of the candidates those to which the node's routes lead, if they
// lead to a namespace at all.
func (r *routes) narrow(c *claim) error {
	for _, ip := range c.pod.IPs {
		to, err := r.leadTo(ip.Unmap())
		if err != nil {
			return fmt.Errorf("ask for the route to %s: %w", ip, err)
		}
		if to < 0 {
			continue
		}
		var errs []error
		c.keep(func(l location) bool {
			number, err := r.number(l)
			errs = append(errs, err)
			return err != nil || number == to
		})
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// leadTo is the number of the namespace at the other end of the interface that the
// node's route to this one address names; negative without such a route.
func (r *routes) leadTo(ip netip.Addr) (int, error) {
	found, err := r.handle.RouteGetWithOptions(ip.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	refused := func(e error) bool { return errors.Is(err, e) }
	if slices.ContainsFunc([]error{unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL}, refused) {
		// No route, or one that refuses.
		return -1, nil
	}
	if err != nil || len(found) != 1 || found[0].Dst == nil || found[0].LinkIndex == 0 {
		return -1, err
	}
	if ones, _ := found[0].Dst.Mask.Size(); ones != ip.BitLen() {
		return -1, nil
	}
	link, err := r.handle.LinkByIndex(found[0].LinkIndex)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return -1, nil
	}
	if err != nil || link.Type() != "veth" && link.Type() != "netkit" {
		return -1, err
	}
	return link.Attrs().NetNsID, nil
}

// number is the kernel's of a namespace; negative if it has none or is gone.
func (r *routes) number(l location) (int, error) {
	if n, ok := r.numbers[l]; ok {
		return n, nil
	}
	file, err := l.openFile()
	if errors.Is(err, ErrGone) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	defer file.close()
	n, err := r.handle.GetNetNsIdByFd(file.fd)
	if err != nil {
		return -1, fmt.Errorf("ask for the number of network namespace %s: %w", l.path, err)
	}
	r.numbers[l] = n
	return n, nil
}

// podCgroup is how kubelet names a pod's cgroup: "pod<UID>", and with the systemd
// driver with underscores for the UID's dashes.
const podCgroup = `pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})\b`

// owners are the pods, by UID, to which processes in contested namespaces belong by
// their cgroups, which no pod can leave.
func (s *scan) owners(proc string, claims []*claim) map[id][]string {
	contested := map[id]bool{}
	for _, c := range claims {
		for _, l := range c.candidates {
			contested[l.id] = contested[l.id] || c.contested
		}
	}
	names, err := readNames(proc)
	if err != nil {
		s.errs = append(s.errs, fmt.Errorf("list processes: %w", err))
		return nil
	}
	uid := regexp.MustCompile(podCgroup)
	owners := map[id][]string{}
	for _, name := range names {
		l, err := stat(filepath.Join(proc, name, "ns/net"))
		if err != nil || !contested[l.id] {
			// What can't be seen proves nothing.
			continue
		}
		text, err := os.ReadFile(filepath.Join(proc, name, "cgroup"))
		if err != nil && !ended(err) {
			s.errs = append(s.errs, fmt.Errorf("read the cgroup of a process: %w", err))
		}
		for _, m := range uid.FindAllStringSubmatch(string(text), -1) {
			owners[l.id] = append(owners[l.id], strings.ReplaceAll(m[1], "_", "-"))
		}
	}
	return owners
}

// narrow leaves of the candidates the one in which processes of the pod are; without
// any, those in which no other pod's are.
func (c *claim) narrow(owners map[id][]string) {
	mine := func(l location) bool { return slices.Contains(owners[l.id], c.pod.UID) }
	if slices.ContainsFunc(c.candidates, mine) {
		c.keep(mine)
		c.proved = len(c.candidates) == 1
		return
	}
	c.keep(func(l location) bool { return len(owners[l.id]) == 0 })
}
