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

// search looks for pods that aren't held. Other pods have namespaces too.
func (f *Finder) search(lost, others []*pod, now time.Time) {
	s, claims, err := f.scan(lost, others, now)
	if err == nil {
		err = f.weigh(s, claims)
	}
	if err != nil {
		for _, p := range lost {
			p.fail(unknown(err), now)
		}
		return
	}
	f.cache = s.readings
	assign(claims)
	for _, c := range claims[:len(lost)] {
		err := c.err
		if err == nil {
			err = s.verdict(c)
		}
		if err == nil {
			err = f.take(c.pod, c.candidates[0], c.proved)
		}
		if err != nil {
			c.pod.fail(err, now)
		}
	}
}

// scan reads the namespaces that directories have and, as long as one of the lost
// pods isn't in one that nobody else claims, those that the host's first process
// sees, and those that processes are in. The claims are in the order of the pods.
func (f *Finder) scan(lost, others []*pod, now time.Time) (*scan, []*claim, error) {
	s, err := newScan(f.cfg.Proc)
	if err != nil {
		return nil, nil, err
	}
	s.holders = map[id]*pod{}
	for _, p := range f.pods {
		if p.ns != nil {
			s.holders[p.ns.file.id] = p
		}
	}
	var claims []*claim
	for _, find := range []func(){
		func() { s.directories(f.cfg.Dirs) },
		func() { s.hostMounts(f.cfg) },
		func() { s.processes(f.cfg.Proc) },
	} {
		before := len(s.locations)
		find()
		f.readInto(s, s.locations[before:], now)
		claims = s.claims(slices.Concat(lost, others))
		unsettled := func(c *claim) bool { return len(c.candidates) != 1 || c.contested }
		if f.cfg.Proc == "" || !slices.ContainsFunc(claims[:len(lost)], unsettled) {
			break
		}
	}
	return s, claims, nil
}

// readInto reads the namespaces that aren't held, or takes what was read within
// cacheLife. Where no address was found there may be one soon.
func (f *Finder) readInto(s *scan, locations []location, now time.Time) {
	var unread []location
	for _, l := range locations {
		r, known := f.cache[l]
		switch {
		case s.holders[l.id] != nil:
		case known && now.Sub(r.at) < cacheLife && len(r.addrs) > 0:
			s.readings[l] = r
		default:
			unread = append(unread, l)
		}
	}
	s.read(unread, now)
}

// weigh takes from the claims what the node knows better than addresses do.
func (f *Finder) weigh(s *scan, claims []*claim) error {
	r, err := newRoutes()
	if err != nil {
		return err
	}
	defer r.handle.Close()
	open := false
	for _, c := range claims {
		if len(c.candidates) > 0 && (c.contested || !c.pod.ExcludeOnly) {
			c.err = unknown(r.narrow(c))
		}
		open = open || c.contested && !c.pod.ExcludeOnly
	}
	if f.cfg.Proc == "" || !open {
		return nil
	}
	owners := s.owners(f.cfg.Proc, claims)
	for _, c := range claims {
		c.narrow(owners)
	}
	return nil
}

// count counts the namespaces that were looked into, now or within cacheLife.
func (s *scan) count() int {
	n := 0
	for _, l := range s.locations {
		if _, read := s.readings[l]; read || s.holders[l.id] != nil {
			n++
		}
	}
	return n
}

// verdict says why a pod is given no namespace; nil if it is given its candidate.
func (s *scan) verdict(c *claim) error {
	ips, name := join(c.pod.IPs, netip.Addr.String, ", "), c.pod.Name
	switch {
	case len(c.pod.IPs) == 0:
		return fmt.Errorf("%w: %s has no address yet", ErrNotFound, name)
	case c.owns:
		return nil
	case len(c.candidates) > 1:
		return fmt.Errorf("%w: %s of %s is in %s", ErrAmbiguous, ips, name,
			join(c.candidates, func(l location) string { return l.path }, " and in "))
	case len(c.candidates) == 1:
		return fmt.Errorf("%w: %s is claimed by %s and by %s, which have an address in common",
			ErrAmbiguous, c.candidates[0].path, name, c.rival.Name)
	case c.rival != nil:
		return fmt.Errorf("%w: %s of %s is in %s, which is held for %s", ErrAmbiguous, ips, name, c.lost.path, c.rival.Name)
	case c.lost.path != "":
		return fmt.Errorf("%w: %s of %s is in %s, but belongs to another namespace by the node's routes or cgroups",
			ErrAmbiguous, ips, name, c.lost.path)
	}
	where := fmt.Sprintf("is in none of the node's %d", s.count())
	if s.count() == 0 {
		where = "can't be looked for: no namespace can be seen (is the host's directory of them mounted here?)"
	}
	if err := s.incomplete(); err != nil {
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
	n, err := l.open()
	if err != nil {
		return unknown(err)
	}
	if err := n.checkAny(p.IPs); err != nil {
		_ = n.Close()
		return unknown(err)
	}
	p.ns, p.err, p.former, p.lost = n, nil, id{}, time.Time{}
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

// join writes a list as text, with a word between.
func join[T any](list []T, text func(T) string, between string) string {
	var texts []string
	for _, v := range list {
		texts = append(texts, text(v))
	}
	return strings.Join(texts, between)
}
