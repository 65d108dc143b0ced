// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// unenrolled opts the pod out that the fixture has enrolled; it lives on.
func (w *podFixture) unenrolled() {
	w.node = view()
	w.node.Pods[0].Enrolled = false
}

// TestPodConnectionsLive: a connection stays with whom it began with, whatever
// happens to redirection, and only new ones take the new way.
func TestPodConnectionsLive(t *testing.T) {
	eachBackend(t, func(t *testing.T, b netfilter.Backend) {
		w := newPodFixture(t, b)
		w.envoyIn(w.enrolled, family.All()...)
		var begunBefore, redirected []*space.Conn
		all := func(conns []*space.Conn, want string) {
			t.Helper()
			for _, c := range conns {
				w.stays(c, want)
			}
		}
		for _, f := range family.All() {
			begunBefore = append(begunBefore, w.hold(f, httpService, "pod"))
		}
		w.must(w.apply())
		all(begunBefore, "pod")
		for _, f := range family.All() {
			redirected = append(redirected, w.hold(f, httpService, "http"))
		}
		w.must(w.pods.Disengage())
		w.checkPods("pod")
		all(redirected, "http")

		w.must(w.apply())
		w.checkPods("")

		// Frontends leave their sets, and come back.
		services := w.node.Frontends
		w.node.Frontends = nil
		w.must(w.apply())
		w.checkPods("pod")
		all(redirected, "http")
		w.node.Frontends = services

		// A new agent takes over.
		_, w.pods = newPods(t, w.cfg, w.dir)
		w.must(w.apply())
		w.checkPods("")
		all(redirected, "http")

		// The pod is opted out: at once, and then nothing is left.
		w.unenrolled()
		w.plan = plan.Compile(w.node, w.cfg)
		w.must(w.pods.Prepare(t.Context(), w.plan))
		w.must(w.pods.Withdraw(t.Context(), w.plan))
		w.checkPods("pod")
		w.must(w.pods.Apply(t.Context(), w.plan))
		for _, f := range family.All() {
			if left := ours(w.enrolled.Run(w.Node, command(b, f)+"-save")); left != ":NODEVOY-OUTPUT - [0:0]\n-A NODEVOY-OUTPUT -m conntrack --ctstate NEW -j RETURN\n" {
				t.Errorf("left in the pod: %s", left)
			}
		}
		if left := w.enrolled.Run(w.Node, "ipset list -n"); left != "" {
			t.Errorf("sets left in the pod: %s", left)
		}
		if len(w.pods.Targets()) != 1 {
			t.Errorf("targets %v, want the pod's as long as it lives", w.pods.Targets())
		}
		w.checkPods("pod")
		all(redirected, "http")
		all(begunBefore, "pod")
		w.released(redirected)
	})
}

// released wants Envoy to be in a pod as long as the pod has redirected connections,
// which it ends, and no longer; those that pass Envoy by, and those to the listener
// itself, don't count.
func (w *podFixture) released(redirected []*space.Conn) {
	w.t.Helper()
	probe, err := w.enrolled.Dial(netip.AddrPortFrom(family.V4.Loopback(), w.cfg.Ports.TCP))
	w.must(err)
	defer func() { w.must(probe.Close()) }()
	if w.pods.CountLeaving(); w.pods.Release() || len(w.pods.Targets()) != 1 {
		w.t.Errorf("targets %v while there are connections", w.pods.Targets())
	}
	if s := w.pods.Report()[w.pods.Targets()[0].UID]; !strings.Contains(s.Reason, fmt.Sprintf("%d of them", len(redirected))) {
		w.t.Errorf("report %+v, want %d connections", s, len(redirected))
	}
	for _, c := range redirected {
		w.must(c.Close())
	}
	space.Until(w.t, limit, "the pod to be released", func() error {
		if w.pods.CountLeaving(); !w.pods.Release() {
			return errors.New("not released")
		}
		return nil
	})
	w.must(w.pods.Apply(w.t.Context(), w.plan))
	for _, f := range family.All() {
		if left := ours(w.enrolled.Run(w.Node, command(netfilter.NFT, f)+"-save") + w.enrolled.Run(w.Node, command(netfilter.Legacy, f)+"-save")); left != "" {
			w.t.Errorf("left in the pod: %s", left)
		}
	}
	if len(w.pods.Targets()) > 0 {
		w.t.Errorf("targets %v of a pod that is released", w.pods.Targets())
	}
}

// TestPodDeadMansSwitch: without Refresh the pod's kernel itself stops redirecting
// new connections, and those that exist live on.
func TestPodDeadMansSwitch(t *testing.T) {
	w := newPodFixture(t, netfilter.NFT)
	w.cfg.Timeout = 3 * time.Second
	_, w.pods = newPods(t, w.cfg, w.dir)
	w.envoyIn(w.enrolled, family.All()...)
	w.must(w.apply())
	held := w.hold(family.V4, httpService, "http")
	end := time.Now().Add(w.cfg.Timeout + time.Second)
	space.Until(t, 2*w.cfg.Timeout, "time to pass", func() error {
		w.must(w.pods.Refresh(t.Context()))
		if time.Now().After(end) {
			return nil
		}
		return errors.New("not yet")
	})
	w.checkPods("")
	w.must(w.pods.Close())
	w.switchFalls()
	w.stays(held, "http")
}

// TestPodAddressMoves: an address that goes to another pod between finding and
// applying: neither the one that had it is redirected nor the one that has it,
// until it is found there.
func TestPodAddressMoves(t *testing.T) {
	w := newPodFixture(t, netfilter.NFT)
	w.envoyIn(w.enrolled, family.All()...)
	w.plan = plan.Compile(w.node, w.cfg)
	w.must(w.pods.Prepare(t.Context(), w.plan))
	for _, prefix := range []string{"10.1.0.2/24", "fd01::2/64"} {
		w.enrolled.Address(w.Node, prefix, false)
		w.stranger.Address(w.Node, prefix, true)
	}
	if err := w.pods.Apply(t.Context(), w.plan); !errors.Is(err, pods.ErrPartial) || !errors.Is(err, netns.ErrGone) {
		t.Errorf("Apply: %v, want ErrPartial and ErrGone", err)
	}
	for _, pod := range []*space.Pod{w.enrolled, w.stranger} {
		if written := ours(w.podSnapshot(pod)); written != "" {
			t.Errorf("written: %s", written)
		}
	}
	w.envoyIn(w.stranger, family.All()...)
	// The namespace is another live pod's, which took the address.
	space.Until(t, limit+10*time.Second, "the address to be another pod's", func() error {
		w.pods.Relocate(t.Context(), w.plan)
		if err := w.pods.Apply(t.Context(), w.plan); !errors.Is(err, netns.ErrAmbiguous) {
			return fmt.Errorf("apply: %w, want ErrAmbiguous", err)
		}
		return nil
	})
	if targets := w.pods.Targets(); len(targets) > 0 {
		t.Errorf("Envoy is to listen in %v", targets)
	}
	w.node.Pods = slices.DeleteFunc(w.node.Pods, func(p model.Pod) bool { return !p.Enrolled })
	w.plan = plan.Compile(w.node, w.cfg)
	// Not at once: a pod that has lost its namespace may be about to be deleted.
	space.Until(t, limit+10*time.Second, "the pod to be found", func() error {
		w.pods.Relocate(t.Context(), w.plan)
		return w.pods.Apply(t.Context(), w.plan)
	})
	if targets := w.pods.Targets(); len(targets) != 1 || targets[0].Netns != w.path(1) {
		t.Errorf("targets %v", targets)
	}
	// It has kept its own addresses, from which nothing is redirected.
	for i, f := range family.All() {
		for from, want := range map[netip.Addr]string{
			enrolledIPs()[i]: "http " + at(f, httpService).String(),
			[]netip.Addr{w.stranger.V4, w.stranger.V6}[i]: "pod " + at(f, backend).String(),
		} {
			dial := func(to netip.AddrPort) (*space.Conn, error) {
				return w.stranger.DialAs(to, space.Caller{Address: from})
			}
			if got := space.Reached(dial, at(f, httpService)); got != want {
				t.Errorf("from %s reached %s, want %s", from, got, want)
			}
		}
	}
}

// TestPodDeleted: a pod is deleted right before, and in the middle of, an Apply.
func TestPodDeleted(t *testing.T) {
	w := newPodFixture(t, netfilter.NFT)
	w.node.Pods[1].Enrolled = true
	w.envoyIn(w.enrolled, family.All()...)
	w.envoyIn(w.stranger, family.All()...)
	w.plan = plan.Compile(w.node, w.cfg)
	w.must(w.pods.Prepare(t.Context(), w.plan))
	w.stranger.Delete(w.Node)
	if err := w.pods.Apply(t.Context(), w.plan); !errors.Is(err, pods.ErrPartial) {
		t.Errorf("Apply: %v, want ErrPartial", err)
	}
	w.checkPods("")
	w.node.Pods = w.node.Pods[:1]
	w.must(w.apply())
	if len(w.pods.Report()) != 1 {
		t.Errorf("report %v", w.pods.Report())
	}
	// While a large Apply is under way: whatever comes of it, the next round
	// knows that the pod is gone.
	w.node.Frontends = append(w.node.Frontends, thousands(20000).Frontends...)
	w.plan = plan.Compile(w.node, w.cfg)
	applied := make(chan error, 1)
	w.Go(func() { applied <- w.pods.Apply(t.Context(), w.plan) })
	w.enrolled.Delete(w.Node)
	if err := <-applied; err != nil && !errors.Is(err, pods.ErrPartial) {
		t.Errorf("Apply: %v, want none or ErrPartial", err)
	}
	w.node.Pods = nil
	w.must(w.apply())
	if len(w.pods.Report()) != 0 {
		t.Errorf("report %v", w.pods.Report())
	}
}

// TestPodFamilies: a pod without IPv6 is redirected for IPv4, and one whose IPv6
// comes up later for both.
func TestPodFamilies(t *testing.T) {
	w := newPodFixture(t, netfilter.NFT)
	w.enrolled.Run(w.Node, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
	w.envoyIn(w.enrolled, family.V4)
	w.node.Pods[0].IPs = enrolledIPs()[:1]
	w.must(w.apply())
	checkClass := func(f family.Family, want string) {
		t.Helper()
		if got := w.reached(w.enrolled, f, httpService); !strings.HasPrefix(got, want+" ") {
			t.Errorf("%s: reached %s, want %s", f, got, want)
		}
	}
	checkClass(family.V4, "http")
	if left := ours(w.enrolled.Run(w.Node, "ip6tables-nft-save")); left != "" {
		t.Errorf("IPv6 rules: %s", left)
	}
	// Kubernetes knows of the address, the pod not yet.
	w.node.Pods[0].IPs = enrolledIPs()
	w.must(w.apply())
	if p := w.pods.Targets()[0]; p.V6 || !strings.Contains(w.pods.Report()["shop/enrolled"].Reason, "fd01::2") {
		t.Errorf("target %v, report %v", p, w.pods.Report())
	}
	w.enrolled.Run(w.Node, "sysctl -qw net.ipv6.conf.all.disable_ipv6=0")
	w.enrolled.Address(w.Node, "fd01::2/64", true)
	w.enrolled.Run(w.Node, "ip -6 route add default via fd01::1")
	w.envoyIn(w.enrolled, family.V6)
	if !w.pods.Relocate(t.Context(), w.plan) || !w.pods.Targets()[0].V6 {
		t.Errorf("targets %v, want IPv6 noticed", w.pods.Targets())
	}
	w.must(w.pods.Apply(t.Context(), w.plan))
	checkClass(family.V4, "http")
	checkClass(family.V6, "http")
}

// TestPodOfUserNamespace: a pod whose root is nobody on the node.
func TestPodOfUserNamespace(t *testing.T) {
	eachBackend(t, func(t *testing.T, b netfilter.Backend) {
		w := newPodFixture(t, b)
		other := w.UserPod(space.Bridged)
		other.Mount(w.Node, w.path(9))
		w.node.Pods = []model.Pod{{Namespace: "shop", Name: "user", UID: "user", Enrolled: true, IPs: []netip.Addr{other.V4, other.V6}}}
		w.envoyIn(other, family.All()...)
		w.must(w.apply())
		for _, f := range family.All() {
			if got, want := w.reached(other, f, httpService), "http "+at(f, httpService).String(); got != want {
				t.Errorf("%s: reached %s, want %s", f, got, want)
			}
		}
		w.must(w.pods.Cleanup(t.Context()))
		if left := ours(w.podSnapshot(other)); left != "" {
			t.Errorf("left after Cleanup: %s", left)
		}
	})
}
