// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// view is what is found in the node's namespaces.
type view struct {
	*scan
	readings map[location]reading
	// holders are the pods for which namespaces are held.
	holders map[id]*pod
}

// search looks for pods that aren't held. Other pods have namespaces too.
func (f *Finder) search(lost, others []*pod, now time.Time) {
	v, claims, err := f.view(lost, others, now)
	if err == nil {
		err = f.weigh(v, claims)
	}
	if err != nil {
		for _, p := range lost {
			p.fail(unknown(err), now)
		}
		return
	}
	f.cache = v.readings
	assign(claims)
	for _, c := range claims[:len(lost)] {
		err := c.err
		if err == nil {
			err = v.verdict(c)
		}
		if err == nil {
			err = f.take(c.pod, c.candidates[0], c.proved)
		}
		if err != nil {
			c.pod.fail(err, now)
		}
	}
}

// view reads the namespaces that directories have and, as long as one of the lost
// pods isn't in one that nobody else claims, those that the host's first process
// sees, and those that processes are in. The claims are in the order of the pods.
func (f *Finder) view(lost, others []*pod, now time.Time) (*view, []*claim, error) {
	s, err := newScan(f.cfg.Proc)
	if err != nil {
		return nil, nil, err
	}
	v := &view{scan: s, readings: map[location]reading{}, holders: map[id]*pod{}}
	for _, p := range f.pods {
		if p.space != nil {
			v.holders[p.space.ns.id] = p
		}
	}
	pods := slices.Concat(lost, others)
	var claims []*claim
	for _, look := range []func(){
		func() { v.directories(f.cfg.Dirs) },
		func() { v.hostMounts(f.cfg) },
		func() { v.processes(f.cfg.Proc) },
	} {
		before := slices.Clone(v.locations)
		look()
		f.readInto(v, slices.DeleteFunc(slices.Clone(v.locations), func(l location) bool { return slices.Contains(before, l) }), now)
		claims = v.claims(pods)
		if f.cfg.Proc == "" || !slices.ContainsFunc(claims[:len(lost)], func(c *claim) bool { return len(c.candidates) != 1 || c.contested }) {
			break
		}
	}
	return v, claims, nil
}

// readInto reads the namespaces that aren't held.
func (f *Finder) readInto(v *view, locations []location, now time.Time) {
	free := slices.DeleteFunc(locations, func(l location) bool { return v.holders[l.id] != nil })
	for l, r := range f.cached(v.scan, free, now) {
		v.readings[l] = r
	}
}

// weigh takes from the claims what the node knows better than addresses do.
func (f *Finder) weigh(v *view, claims []*claim) error {
	r, err := newRoutes()
	if err != nil {
		return err
	}
	defer r.close()
	open := false
	for _, c := range claims {
		if len(c.candidates) > 0 && (c.contested || c.pod.wanted()) {
			c.err = unknown(r.narrow(c))
		}
		open = open || c.contested && c.pod.wanted()
	}
	if f.cfg.Proc == "" || !open {
		return nil
	}
	owners := v.owners(f.cfg.Proc, claims)
	for _, c := range claims {
		c.narrow(owners)
	}
	return nil
}

// count counts the namespaces that were looked into, now or within cacheLife.
func (v *view) count() int {
	n := 0
	for _, l := range v.locations {
		if _, read := v.readings[l]; read || v.holders[l.id] != nil {
			n++
		}
	}
	return n
}

// verdict says why a pod is given no namespace; nil if it is given its candidate.
func (v *view) verdict(c *claim) error {
	ips, name := join(c.pod.IPs), c.pod.Name
	switch {
	case len(c.pod.IPs) == 0:
		return fmt.Errorf("%w: %s has no address yet", ErrNotFound, name)
	case c.owns:
		return nil
	case len(c.candidates) > 1:
		return fmt.Errorf("%w: %s of %s is in %s", ErrAmbiguous, ips, name, paths(c.candidates))
	case len(c.candidates) == 1:
		return fmt.Errorf("%w: %s is claimed by %s and by %s, which have an address in common",
			ErrAmbiguous, c.candidates[0].path, name, c.rival.Name)
	case c.rival != nil:
		return fmt.Errorf("%w: %s of %s is in %s, which is held for %s", ErrAmbiguous, ips, name, c.lost.path, c.rival.Name)
	case c.lost.path != "":
		return fmt.Errorf("%w: %s of %s is in %s, but belongs to another namespace by the node's routes or cgroups",
			ErrAmbiguous, ips, name, c.lost.path)
	}
	where := fmt.Sprintf("is in none of the node's %d", v.count())
	if v.count() == 0 {
		where = "can't be looked for: no namespace can be seen (is the host's directory of them mounted here?)"
	}
	if err := v.incomplete(); err != nil {
		return fmt.Errorf("%w: %s of %s %s: %w", ErrUnknown, ips, name, where, err)
	}
	return fmt.Errorf("%w: %s of %s %s", ErrNotFound, ips, name, where)
}

// take holds a namespace for a pod. A pod that was in another namespace before is
// given none for a while, unless processes prove that it is its own.
func (f *Finder) take(p *pod, l location, proved bool) error {
	if !proved && p.moved(l.id) && f.now().Before(p.lost.Add(reassignDelay)) {
		return fmt.Errorf("%w: %s has an address of %s, whose own namespace is gone, and may be a new pod's", ErrAmbiguous, l.path, p.Name)
	}
	s, err := l.open()
	if err != nil {
		return unknown(err)
	}
	if err := s.checkAny(p.IPs); err != nil {
		_ = s.Close()
		return unknown(err)
	}
	p.space, p.err, p.former, p.lost = s, nil, id{}, time.Time{}
	f.log.Debug("network namespace found", zap.String("pod", p.Name), zap.String("path", l.path))
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

// unknown makes of an error that is no answer one that says so.
func unknown(err error) error {
	if err == nil || errors.Is(err, ErrGone) || errors.Is(err, ErrUnknown) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

func join(ips []netip.Addr) string {
	var texts []string
	for _, ip := range ips {
		texts = append(texts, ip.String())
	}
	return strings.Join(texts, ", ")
}

func paths(locations []location) string {
	var texts []string
	for _, l := range locations {
		texts = append(texts, l.path)
	}
	return strings.Join(texts, " and in ")
}
