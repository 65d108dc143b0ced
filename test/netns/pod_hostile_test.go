// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

// hostileFixture is three enrolled pods, one of which can be made hostile.
type hostileFixture struct {
	*podFixture
	normal  []*space.Pod
	hostile *space.Pod
}

func newHostileFixture(t *testing.T) *hostileFixture {
	t.Helper()
	w := &hostileFixture{podFixture: newPodFixture(t, netfilter.NFT)}
	w.normal, w.hostile = []*space.Pod{w.enrolled, w.Pod(space.Bridged)}, w.Pod(space.Bridged)
	w.normal[1].Mount(w.Node, w.path(3))
	w.hostile.Mount(w.Node, w.path(4))
	enrol := func(name string, pod *space.Pod) {
		w.node.Pods = append(w.node.Pods, model.Pod{Namespace: "shop", Name: name, UID: name, Enrolled: true, IPs: []netip.Addr{pod.V4, pod.V6}})
	}
	enrol("second", w.normal[1])
	enrol("hostile", w.hostile)
	for _, pod := range append(w.normal, w.hostile) {
		w.envoyIn(pod, family.All()...)
	}
	return w
}

// fill puts 300,000 rules into the hostile pod's own nat OUTPUT; of nft, which takes
// the longer for each the more there are, 100,000.
func (w *hostileFixture) fill(b netfilter.Backend) {
	w.t.Helper()
	const rules, nftRules, steps = 300_000, 100_000, 100
	file := filepath.Join(w.t.TempDir(), "rules")
	if b == netfilter.Legacy {
		w.must(os.WriteFile(file, []byte("*nat\n"+strings.Repeat("-A OUTPUT -p tcp -m tcp --dport 80 -j RETURN\n", rules)+"COMMIT\n"), 0o600))
		w.hostile.Run(w.Node, "iptables-legacy-restore --noflush "+file)
		return
	}
	// A transaction has to fit into a socket's buffer.
	chain := "table ip nat {\nchain OUTPUT {\ntype nat hook output priority -100;\n" + strings.Repeat("return\n", nftRules/steps) + "}\n}\n"
	w.must(os.WriteFile(file, []byte(chain), 0o600))
	for range steps {
		w.hostile.Run(w.Node, "nft -f "+file)
	}
}

// checkNormal checks that the normal pods are redirected, and their switch was just
// renewed.
func (w *hostileFixture) checkNormal() {
	w.t.Helper()
	for _, pod := range w.normal {
		for _, f := range family.All() {
			if got, want := w.reached(pod, f, httpService), "http "+at(f, httpService).String(); got != want {
				w.t.Errorf("%s: reached %s, want %s", f, got, want)
			}
		}
		_, left, _ := strings.Cut(pod.Run(w.Node, "ipset list nodevoy-pods4"), pod.V4.String()+" timeout ")
		seconds, err := strconv.Atoi(strings.TrimSpace(left))
		if limit := int(w.cfg.Timeout.Seconds()); err != nil || seconds < limit-5 {
			w.t.Errorf("the switch ends in %q s, %v; want about %d", left, err, limit)
		}
	}
}

// bounded checks that something takes little memory.
func (w *hostileFixture) bounded(what string, do func()) {
	w.t.Helper()
	const little = 32 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > little {
		w.t.Errorf("%s took %d KiB", what, took>>10)
	}
}

// TestHostilePod: a pod that fills its own nat table is given up, by name; the others
// go on being redirected, by the same agent and by the next, and it costs no memory.
func TestHostilePod(t *testing.T) {
	for _, filled := range backends() {
		t.Run(string(filled), func(t *testing.T) {
			w := newHostileFixture(t)
			w.must(w.apply())
			w.checkNormal()
			w.fill(filled)
			w.bounded("Drift", func() {
				if _, err := w.pods.Drift(t.Context(), w.plan); err != nil && (!errors.Is(err, dump.ErrTooMuch) || !strings.Contains(err.Error(), "shop/hostile: ")) {
					t.Errorf("Drift: %v", err)
				}
			})
			givenUp := func() {
				t.Helper()
				w.bounded("Apply", func() {
					if err := w.apply(); !errors.Is(err, pods.ErrPartial) || !errors.Is(err, dump.ErrTooMuch) || !strings.Contains(err.Error(), "shop/hostile: ") {
						t.Errorf("Apply: %v, want ErrPartial that names the pod", err)
					}
				})
				w.bounded("Refresh", func() { w.must(w.pods.Refresh(t.Context())) })
				if s := w.pods.Report()["hostile"]; s.Redirecting || !strings.Contains(s.Reason, dump.ErrTooMuch.Error()) {
					t.Errorf("report %+v", s)
				}
				if members := w.hostile.Run(w.Node, "ipset list nodevoy-pods4 -output save"); strings.Contains(members, "add ") {
					t.Errorf("the hostile pod's switch: %s", members)
				}
				w.checkNormal()
			}
			w.pods.Forget()
			givenUp()
			_, w.pods = newPods(t, w.cfg, w.dir)
			givenUp()
			w.bounded("Cleanup", func() {
				// Of iptables-nft, the jump is among the rules and holds on to the sets. Of the
				// other, there is nothing of this agent's.
				err := w.pods.Cleanup(t.Context())
				named := errors.Is(err, dump.ErrTooMuch) && strings.Contains(err.Error(), w.path(4))
				if named != (filled == netfilter.NFT) || !named && err != nil {
					t.Errorf("Cleanup: %v, want an error that names the namespace if sets are left there", err)
				}
			})
			for _, pod := range w.normal {
				if left := ours(w.podSnapshot(pod)); left != "" {
					t.Errorf("left after Cleanup: %s", left)
				}
			}
		})
	}
}

// TestHostileStranger: one that never was enrolled keeps nobody from cleaning up.
func TestHostileStranger(t *testing.T) {
	w := newHostileFixture(t)
	w.node.Pods[len(w.node.Pods)-1].Enrolled = false
	w.fill(netfilter.Legacy)
	w.must(w.apply())
	w.must(w.pods.Refresh(t.Context()))
	w.checkNormal()
	if w.pods.Pending() {
		t.Error("the stranger is looked at all the time")
	}
	w.must(w.pods.Drain(t.Context()))
	w.must(w.pods.Cleanup(t.Context()))
	for _, pod := range w.normal {
		if left := ours(w.podSnapshot(pod)); left != "" {
			t.Errorf("left after Cleanup: %s", left)
		}
	}
}
