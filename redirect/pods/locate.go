// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// Prepare finds the network namespaces of the plan's pods, and closes those
// of pods that are gone. It writes nothing. A pod that isn't found is no error
// here: see Report.
func (p *Pods) Prepare(_ context.Context, desired *plan.Plan) error {
	p.long.Lock()
	defer p.long.Unlock()
	p.locate(desired)
	return nil
}

// Relocate looks again for pods that Prepare didn't find, and for addresses that
// have come up since. It says whether Targets has changed.
func (p *Pods) Relocate(_ context.Context, desired *plan.Plan) (changed bool) {
	p.long.Lock()
	defer p.long.Unlock()
	before := p.Targets()
	p.locate(desired)
	return !slices.Equal(before, p.Targets())
}

// locate makes the list of located pods that of the plan.
func (p *Pods) locate(desired *plan.Plan) {
	want := map[string]plan.PodPlan{}
	for _, pp := range desired.Pods {
		want[pp.UID] = pp
	}
	live := func(uid string) bool {
		_, ok := slices.BinarySearchFunc(desired.LivePods, uid, func(l plan.LivePod, uid string) int { return cmp.Compare(l.UID, uid) })
		return ok
	}
	for _, pod := range p.list() {
		if _, enrolled := want[pod.UID]; !enrolled && live(pod.UID) {
			want[pod.UID] = plan.PodPlan{Namespace: pod.Namespace, Pod: pod.Pod, UID: pod.UID, IPs: pod.ips}
		}
	}
	leaving := p.addLeaving(want, desired.LivePods)
	found, missing := p.finder.Find(allPods(want, desired.LivePods))
	// A pod that has lost its namespace, or has another, is closed before anything
	// is opened: the namespace may be another pod's now.
	for _, pod := range p.list() {
		if found[pod.UID] != pod.ns {
			p.closePod(pod, want)
		}
	}
	if err := p.adopt(leaving, want, found); err != nil {
		p.log.Warn("not all pods are taken over that are not enrolled and have redirected connections", zap.Error(err))
	}
	for uid, ns := range found {
		pp := want[uid]
		if err := p.upsert(&pp, ns); err != nil {
			missing[uid] = err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// A pod that is no longer enrolled may be gone.
	before := p.missing
	p.missing = map[string]*missingPod{}
	for _, pp := range desired.Pods {
		if err := missing[pp.UID]; err != nil {
			m := &missingPod{}
			if before[pp.UID] != nil {
				m = before[pp.UID]
			}
			m.err = err
			if m.backoff.due(p.now()) {
				m.backoff.failed(p.now(), firstSearch)
			}
			p.missing[pp.UID] = m
		}
	}
}

// allPods are the pods whose namespaces are wanted, and all others on the node,
// whose namespaces are not theirs. They are sorted.
func allPods(want map[string]plan.PodPlan, live []plan.LivePod) []netns.Wanted {
	var list []netns.Wanted
	for uid, pp := range want {
		list = append(list, netns.Wanted{UID: uid, Name: pp.Name(), IPs: pp.IPs})
	}
	for _, l := range live {
		if _, wanted := want[l.UID]; !wanted && len(l.IPs) > 0 {
			list = append(list, netns.Wanted{UID: l.UID, Name: l.Name, IPs: l.IPs, ExcludeOnly: true})
		}
	}
	slices.SortFunc(list, func(x, y netns.Wanted) int { return cmp.Compare(x.UID, y.UID) })
	return list
}

// closePod stops redirecting a pod and closes its sockets. Its listeners go too, so
// nothing may be redirected to them any more: a pod that can't be disengaged is held
// until it can, or its namespace is gone.
func (p *Pods) closePod(pod *podNetns, want map[string]plan.PodPlan) {
	log := p.log.With(zap.String("pod", pod.Namespace+"/"+pod.Pod), zap.String("netns", pod.Netns))
	err := pod.applier.DisengagePod()
	if err != nil && !errors.Is(pod.ns.Check(nil), netns.ErrGone) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !pod.held {
			log.Warn("pod is gone but not disengaged: Envoy's listeners in it stay until it is", zap.Error(err))
		}
		pod.held, pod.enrolled, pod.drained = true, false, true
		return
	}
	p.remove(pod)
	if err := errors.Join(err, pod.applier.Close()); err != nil {
		log.Debug("pod not disengaged, or its socket not closed", zap.Error(err))
	}
	if _, wanted := want[pod.UID]; !wanted {
		p.finder.Release(pod.UID)
	}
	log.Info("pod's network namespace closed")
}

// upsert adds a pod whose namespace was found, or updates the one that is there.
func (p *Pods) upsert(pp *plan.PodPlan, ns namespace) error {
	held, err := ns.Addresses()
	if err != nil {
		return fmt.Errorf("%s: %w", pp.Name(), err)
	}
	p.mu.Lock()
	pod := p.located[pp.UID]
	p.mu.Unlock()
	isNew := pod == nil
	if isNew {
		k, err := p.open(ns)
		if err != nil {
			return fmt.Errorf("%s: %w", pp.Name(), err)
		}
		pod = p.newPod(pp, ns, k)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.located[pp.UID] = pod
	if len(pp.Families) == 0 && !isNew {
		// It is no longer enrolled: its listeners stay as they are.
		return nil
	}
	if !pod.enrolled {
		// Whoever enrolls a pod anew may have cured it.
		pod.backoff, pod.released, pod.taken = backoff{}, false, netip.AddrPort{}
		pod.enrolments++
	}
	pod.enrolled, pod.held, pod.present = true, false, held
	now := pp.ForAddresses(held)
	if !slices.Equal(pod.ips, now.IPs) {
		pod.backoff = backoff{}
	}
	pod.ips, pod.missingIPs = now.IPs, nil
	if len(now.IPs) < len(pp.IPs) {
		lacking := slices.DeleteFunc(slices.Clone(pp.IPs), func(ip netip.Addr) bool { return slices.Contains(held, ip) })
		pod.missingIPs = fmt.Errorf("of the pod's addresses %v these are on no link yet: %v", pp.IPs, lacking)
	}
	_, pod.V4 = now.Family(family.V4)
	_, pod.V6 = now.Family(family.V6)
	return nil
}

// newPod is a pod whose namespace was found, with the kernel there.
func (p *Pods) newPod(pp *plan.PodPlan, ns namespace, k apply.Kernel) *podNetns {
	p.log.Info("pod's network namespace found", zap.String("pod", pp.Name()), zap.String("netns", ns.Path()))
	return &podNetns{
		ns: ns, applier: apply.NewInPod(p.cfg, k, p.group, p.log.With(zap.String("pod", pp.Name()))),
		PodTarget: model.PodTarget{Namespace: pp.Namespace, Pod: pp.Pod, UID: pp.UID, Workload: pp.Workload, Netns: ns.Path()},
	}
}
