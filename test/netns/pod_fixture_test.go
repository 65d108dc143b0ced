// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// backends are those that pods' rules can be written with.
func backends() []netfilter.Backend { return []netfilter.Backend{netfilter.NFT, netfilter.Legacy} }

// podFixture is the fixture with redirection in the enrolled pods themselves.
type podFixture struct {
	*fixture
	dir    string
	finder *netns.Finder
	pods   *pods.Pods
	node   *model.Node
}

// newPodFixture makes the fixture, with pods to be found and nothing of nodevoy's.
func newPodFixture(t *testing.T, b netfilter.Backend) *podFixture {
	t.Helper()
	s := setting{wiring: space.Bridged, backend: b, proxy: "iptables"}
	w := &podFixture{fixture: &fixture{Node: space.New(t), t: t}, dir: t.TempDir(), node: view()}
	w.Bridge(false)
	w.enrolled, w.stranger, w.backend = w.Pod(s.wiring), w.Pod(s.wiring), w.Pod(s.wiring)
	for i, pod := range []*space.Pod{w.enrolled, w.stranger, w.backend} {
		pod.Mount(w.Node, w.path(i))
	}
	for _, f := range family.All() {
		w.backend.Listen(w.Node, "pod", at(f, backend))
	}
	w.kubeProxy(s)
	w.cfg = podConfig(b)
	w.plan = plan.Compile(w.node, w.cfg)
	w.finder, w.pods = newPods(t, w.cfg, w.dir)
	return w
}

// newPodFixtureApplied is newPodFixture with Envoy's stand-in, redirecting.
func newPodFixtureApplied(t *testing.T, b netfilter.Backend) *podFixture {
	t.Helper()
	w := newPodFixture(t, b)
	w.envoyIn(w.enrolled, family.All()...)
	w.must(w.apply())
	return w
}

// path is where the runtime mounts a pod's namespace.
func (w *podFixture) path(number int) string {
	return filepath.Join(w.dir, fmt.Sprintf("cni-%d", number))
}

// apply is a whole round.
func (w *podFixture) apply() error {
	w.t.Helper()
	w.plan = plan.Compile(w.node, w.cfg)
	w.must(w.pods.Prepare(w.t.Context(), w.plan))
	w.must(w.pods.Withdraw(w.t.Context(), w.plan))
	return w.pods.Apply(w.t.Context(), w.plan)
}

// envoyIn listens in a pod where Envoy would.
func (w *podFixture) envoyIn(pod *space.Pod, families ...family.Family) {
	w.t.Helper()
	for _, f := range families {
		for _, c := range model.Classes() {
			pod.Listen(w.Node, c.String(), netip.AddrPortFrom(f.Loopback(), w.cfg.Ports.Of(c)))
		}
	}
}

// checkPods checks what the enrolled pod reaches at the Services of each class.
func (w *podFixture) checkPods(want string) {
	w.t.Helper()
	rows := []truth{{from: "enrolled", to: httpService, want: "http"}, {from: "enrolled", to: tcpService, want: "tcp"}, {from: "enrolled", to: detectService, want: "detect"}}
	if want != "" {
		for i := range rows {
			rows[i].want = want
		}
	}
	w.checkTruths(rows)
}

func podConfig(b netfilter.Backend) plan.Config {
	cfg := plan.DefaultConfig()
	cfg.Mode, cfg.Backend = plan.PodMode, b
	return cfg
}

// newPods is a Pods as after a restart of the agent.
func newPods(t testing.TB, cfg plan.Config, dir string) (*netns.Finder, *pods.Pods) {
	t.Helper()
	log := zap.NewNop()
	if testing.Verbose() {
		log = zaptest.NewLogger(t)
	}
	finder := netns.New(netns.Config{Dirs: []string{dir}}, time.Now, log)
	p, err := pods.New(cfg, finder, askStandIn, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		finder.Close()
	})
	return finder, p
}

// askStandIn asks Envoy's stand-in in a pod.
func askStandIn(_ context.Context, s *netns.Namespace, to netip.AddrPort) error {
	return s.Do(func() error {
		c, err := space.Dial(to)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		answer, err := c.Ask()
		if err == nil && !strings.HasPrefix(answer, "http ") {
			err = fmt.Errorf("%q is not Envoy's answer", answer)
		}
		return err
	})
}
