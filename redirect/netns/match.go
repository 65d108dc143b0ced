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

// claim is a pod and the namespaces that may be its own.
type claim struct {
	pod *pod
	// candidates have one of the pod's addresses, and are held for nobody.
	candidates []location
	// contested is set if there are several candidates, or others claim one.
	contested bool
	// proved is set if processes prove that the only candidate is the pod's.
	proved bool
	// owns is set when the only candidate left is the pod's.
	owns bool
	// lost is a namespace that has one of the addresses and isn't the pod's; rival
	// is whose it is, or who claims the same.
	lost  location
	rival *pod
	// err is why it couldn't be found out.
	err error
}

// claims are what addresses say of each pod, in the order of the pods.
func (s *scan) claims(pods []*pod) []*claim {
	at := map[netip.Addr][]location{}
	for _, l := range s.locations {
		addrs := s.readings[l].addrs
		if h := s.holders[l.id]; h != nil {
			addrs = h.ns.cachedAddresses()
		}
		for _, a := range addrs {
			at[a] = append(at[a], l)
		}
	}
	claims := make([]*claim, 0, len(pods))
	claimants := map[location]int{}
	for _, p := range pods {
		c := &claim{pod: p}
		for _, ip := range p.IPs {
			for _, l := range at[ip.Unmap()] {
				// What is another pod's is not this one's, whatever addresses are put there.
				if h := s.holders[l.id]; h != nil {
					c.lost, c.rival = l, h
				} else if !slices.Contains(c.candidates, l) {
					c.candidates = append(c.candidates, l)
					claimants[l]++
				}
			}
		}
		claims = append(claims, c)
	}
	for _, c := range claims {
		c.contested = len(c.candidates) > 1 || slices.ContainsFunc(c.candidates, func(l location) bool { return claimants[l] > 1 })
	}
	return claims
}

// keep removes candidates, and remembers one of them.
func (c *claim) keep(which func(location) bool) {
	c.candidates = slices.DeleteFunc(c.candidates, func(l location) bool {
		if which(l) {
			return false
		}
		c.lost, c.rival = l, nil
		return true
	})
}

// rank is how good the claim to a candidate is. A pod that was in another namespace
// before has the least: its address is a new pod's.
func (c *claim) rank(l location) int {
	switch {
	case c.proved:
		return 2
	case c.pod.moved(l.id):
		return 0
	}
	return 1
}

// assign gives namespaces to pods: a candidate that no other pod claims with as good
// a right is the pod's, if there is but one of these, and it is nobody else's then.
// A pod's namespace has another pod's address only if somebody in it has put it
// there; so who doesn't do that, and is seen, is never mistaken because others do.
// What is left is ambiguous.
func assign(claims []*claim) {
	for changed := true; changed; {
		changed = false
		for _, c := range claims {
			if c.owns {
				continue
			}
			own, ok := c.undisputed(claims)
			if !ok {
				continue
			}
			c.owns, c.candidates, changed = true, []location{own}, true
			for _, o := range claims {
				if o != c && slices.Contains(o.candidates, own) {
					o.keep(func(l location) bool { return l != own })
					o.rival = c.pod
				}
			}
		}
	}
}

// undisputed is the only candidate that no other pod claims with as good a right.
func (c *claim) undisputed(claims []*claim) (own location, ok bool) {
	for _, l := range c.candidates {
		i := slices.IndexFunc(claims, func(o *claim) bool {
			return o != c && slices.Contains(o.candidates, l) && o.rank(l) >= c.rank(l)
		})
		switch {
		case i >= 0:
			c.rival = claims[i].pod
		case ok:
			return location{}, false
		default:
			own, ok = l, true
		}
	}
	return own, ok
}

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
