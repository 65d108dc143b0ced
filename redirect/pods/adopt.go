// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"errors"
	"net/netip"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// addLeaving adds to the pods that are wanted, in the first search, those that are not
// enrolled and have redirected connections: an earlier agent, with the same Envoy, had
// Envoy listen in them. It returns which it added.
func (p *Pods) addLeaving(want map[string]plan.PodPlan, live []plan.LivePod) (added []string) {
	if p.adopted {
		return nil
	}
	p.adopted = true
	others := slices.DeleteFunc(slices.Clone(live), func(l plan.LivePod) bool { return len(l.Former.IPs) == 0 })
	if len(others) == 0 {
		return nil
	}
	ips, err := p.redirectedIPs(others)
	if err != nil {
		p.log.Warn("can't tell which pods that are not enrolled have redirected connections", zap.Error(err))
	}
	for _, l := range others {
		if slices.ContainsFunc(l.Former.IPs, func(ip netip.Addr) bool { return ips[ip] }) {
			want[l.UID], added = l.Former, append(added, l.UID)
		}
	}
	return added
}

// redirectedIPs are the addresses in the namespaces of these pods that have redirected
// connections.
func (p *Pods) redirectedIPs(of []plan.LivePod) (map[netip.Addr]bool, error) {
	theirs, redirected := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, l := range of {
		for _, ip := range l.Former.IPs {
			theirs[ip] = true
		}
	}
	all, err := p.finder.All()
	var mu sync.Mutex
	return redirected, errors.Join(err, parallel(all, func(ns namespace) error {
		n := 0
		held, err := ns.Addresses()
		if slices.ContainsFunc(held, func(ip netip.Addr) bool { return theirs[ip] }) {
			n, err = p.count(ns)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, ip := range held {
			redirected[ip] = redirected[ip] || n > 0
		}
		return errors.Join(err, ns.Close())
	}))
}

// adopt takes the added pods that were found for what they would be had this agent
// seen them enrolled. They are neither wanted nor found any more.
func (p *Pods) adopt(added []string, want map[string]plan.PodPlan, found map[string]namespace) error {
	var errs []error
	for _, uid := range added {
		pp, ns := want[uid], found[uid]
		if ns != nil {
			err := p.takeOver(&pp, ns)
			if err != nil {
				p.finder.Release(uid)
			}
			errs = append(errs, err)
		}
		delete(want, uid)
		delete(found, uid)
	}
	return errors.Join(errs...)
}

func (p *Pods) takeOver(pp *plan.PodPlan, ns namespace) error {
	held, err := ns.Addresses()
	if err != nil {
		return err
	}
	k, err := p.open(ns)
	if err != nil {
		return err
	}
	pod, now := p.newPod(pp, ns, k), pp.ForAddresses(held)
	pod.ips, pod.present = now.IPs, held
	_, pod.V4 = now.Family(family.V4)
	_, pod.V6 = now.Family(family.V6)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.located[pod.UID] = pod
	return nil
}
