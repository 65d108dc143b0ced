// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// candidate is a namespace that has an address of a wanted pod.
type candidate struct {
	place
	// holder is the pod that it is held for.
	holder *pod
}

// view is what is found in the node's namespaces.
type view struct {
	*look
	readings map[place]reading
	holders  map[id]*pod
}

// search looks for pods that aren't held.
func (f *Finder) search(lost []*pod, now time.Time) {
	v, err := f.view(lost, now)
	if err != nil {
		for _, p := range lost {
			p.fail(err, now)
		}
		return
	}
	f.cache = v.readings
	// In the order of lost, for the sake of messages.
	var claimed []place
	claims := map[place][]*pod{}
	for _, p := range lost {
		c, err := v.choose(p)
		if err != nil {
			p.fail(err, now)
			continue
		}
		if claims[c] == nil {
			claimed = append(claimed, c)
		}
		claims[c] = append(claims[c], p)
	}
	for _, c := range claimed {
		for _, p := range claims[c] {
			if err := f.take(p, c, claims[c]); err != nil {
				p.fail(err, now)
			}
		}
	}
}

// view reads the namespaces that directories have, and if one of the pods is in
// none of those, the namespaces that processes are in.
func (f *Finder) view(lost []*pod, now time.Time) (*view, error) {
	l, err := newLook()
	if err != nil {
		return nil, err
	}
	v := &view{look: l, readings: map[place]reading{}, holders: map[id]*pod{}}
	for _, p := range f.pods {
		if p.space != nil {
			v.holders[p.space.ns.id] = p
		}
	}
	v.directories(f.cfg.Dirs)
	f.readInto(v, v.places, now)
	if f.cfg.Proc != "" && slices.ContainsFunc(lost, func(p *pod) bool { return len(v.candidates(p.IPs)) == 0 }) {
		before := slices.Clone(v.places)
		v.processes(f.cfg.Proc)
		f.readInto(v, slices.DeleteFunc(slices.Clone(v.places), func(p place) bool { return slices.Contains(before, p) }), now)
	}
	return v, nil
}

// readInto reads the namespaces that aren't held.
func (f *Finder) readInto(v *view, places []place, now time.Time) {
	free := slices.DeleteFunc(slices.Clone(places), func(p place) bool { return v.holders[p.id] != nil })
	for p, r := range f.cached(v.look, free, now) {
		v.readings[p] = r
	}
}

// candidates are the namespaces that have one of the addresses.
func (v *view) candidates(ips []netip.Addr) []candidate {
	var found []candidate
	for _, p := range v.places {
		if h := v.holders[p.id]; h != nil {
			if intersect(ips, h.space.lately()) {
				found = append(found, candidate{p, h})
			}
		} else if intersect(ips, v.readings[p].addrs) {
			found = append(found, candidate{place: p})
		}
	}
	return found
}

// count counts the namespaces that were looked into, now or lately.
func (v *view) count() int {
	n := 0
	for _, p := range v.places {
		if _, read := v.readings[p]; read || v.holders[p.id] != nil {
			n++
		}
	}
	return n
}

// choose gives the namespace that is the pod's, unless others say the same.
func (v *view) choose(p *pod) (place, error) {
	all := v.candidates(p.IPs)
	// What is another pod's is not this one's, whatever addresses are put there.
	free := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return c.holder != nil })
	switch {
	case len(p.IPs) == 0:
		return place{}, fmt.Errorf("%w: %s has no address yet", ErrNotFound, p.Name)
	case len(free) == 1:
		return free[0].place, nil
	case len(free) > 1:
		return place{}, fmt.Errorf("%w: %s of %s is in %s", ErrAmbiguous, join(p.IPs), p.Name, paths(free))
	case len(all) > 0:
		return place{}, fmt.Errorf("%w: %s of %s is in %s, which is held for %s",
			ErrAmbiguous, join(p.IPs), p.Name, all[0].path, all[0].holder.Name)
	}
	where := fmt.Sprintf("is in none of the node's %d", v.count())
	if v.count() == 0 {
		where = "can't be looked for: no namespace can be seen (is the host's directory of them mounted here?)"
	}
	err := fmt.Errorf("%w: %s of %s %s", ErrNotFound, join(p.IPs), p.Name, where)
	if trouble := v.trouble(); trouble != nil {
		err = fmt.Errorf("%w: %w", err, trouble)
	}
	return place{}, err
}

// take holds a namespace for a pod, unless another pod claims it with as much right.
// A pod that was in another namespace before has less: its address is a new pod's.
func (f *Finder) take(p *pod, c place, claimants []*pod) error {
	for _, other := range claimants {
		if other != p && (p.moved(c.id) || !other.moved(c.id)) {
			return fmt.Errorf("%w: %s is claimed by %s and by %s, which have an address in common",
				ErrAmbiguous, c.path, p.Name, other.Name)
		}
	}
	if p.moved(c.id) && f.now().Before(p.lost.Add(doubt)) {
		return fmt.Errorf("%w: %s has an address of %s, whose own namespace is gone, and may be a new pod's", ErrAmbiguous, c.path, p.Name)
	}
	s, err := c.open()
	if err != nil {
		return err
	}
	if err := s.checkAny(p.IPs); err != nil {
		_ = s.Close()
		return err
	}
	p.space, p.err, p.former, p.lost = s, nil, id{}, time.Time{}
	f.log.Debug("network namespace found", zap.String("pod", p.Name), zap.String("path", c.path))
	return nil
}

// moved says whether the pod was in another namespace than this before.
func (p *pod) moved(to id) bool { return p.former != id{} && p.former != to }

// fail notes why a pod isn't found.
func (p *pod) fail(err error, now time.Time) {
	p.err = err
	if now.Before(p.next) {
		return
	}
	p.wait = max(p.wait, firstWait)
	p.next = now.Add(p.wait)
	p.wait = min(2*p.wait, lastWait)
}

func join(ips []netip.Addr) string {
	var texts []string
	for _, ip := range ips {
		texts = append(texts, ip.String())
	}
	return strings.Join(texts, ", ")
}

func paths(cs []candidate) string {
	var texts []string
	for _, c := range cs {
		texts = append(texts, c.path)
	}
	return strings.Join(texts, " and in ")
}
