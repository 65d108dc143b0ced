// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// slowly makes each command in a namespace take this long, or until it is ended, from
// now on.
func slowly(t *testing.T, s *fakeNamespace, takes time.Duration) {
	s.fixture.change(func() {
		s.before = func(ctx context.Context, call string) error {
			if !strings.HasPrefix(call, "list") && call != "restore" {
				// A message to the kernel, that it answers at once.
				return nil
			}
			select {
			case <-time.After(takes):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			case <-t.Context().Done():
				return t.Context().Err()
			}
		}
	})
}

// slowNode is a node with a quick pod, 10.2.0.1, beside 20 others.
func slowNode(t *testing.T) (f *fixture, n *model.Node, quick *fakeNamespace, slow []*fakeNamespace) {
	t.Helper()
	f = newFixture(t)
	n = redirecttest.Node(t, []string{"http 10.96.0.1:80"})
	for i := range 20 {
		ip := fmt.Sprintf("10.1.0.%d", 2+i)
		slow = append(slow, f.add(ip))
		n.Pods = append(n.Pods, redirecttest.Node(t, nil, ip).Pods...)
	}
	quick = f.add("10.2.0.1")
	n.Pods = append(n.Pods, redirecttest.Node(t, nil, "10.2.0.1").Pods...)
	return f, n, quick, slow
}

// longest is how long a single step may take, for the switch to be renewed in time: a
// round is three of them, and may begin just before a renewal is due.
const longest = 5 * time.Second

// TestSlowPodsLeaveTime: pods in which each command takes long keep the agent's loop
// neither from renewing the switch of the others in time, nor from redirecting them,
// following changes in them and finding what others did there.
func TestSlowPodsLeaveTime(t *testing.T) {
	for what, redirected := range map[string]bool{"from the start": false, "once they are redirected": true} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, n, quick, slow := slowNode(t)
				quick.Sets.Now = time.Now
				p := f.pods()
				p.now = time.Now
				if redirected {
					f.must(f.round(p, n))
				}
				for _, s := range slow {
					slowly(t, s, 4*time.Second)
				}
				step := func(what string, do func() error) (err error) {
					start := time.Now()
					if err = do(); time.Since(start) > longest {
						t.Errorf("%s took %s: %v", what, time.Since(start), err)
					}
					return err
				}
				round := func() error {
					desired := f.plan(n)
					f.must(p.Prepare(t.Context(), desired))
					err := step("Withdraw", func() error { return p.Withdraw(t.Context(), desired) })
					return errors.Join(err, step("Apply", func() error { return p.Apply(t.Context(), desired) }))
				}
				_ = round()
				// Something is done all the time, and the switch renewed when it is due.
				due, found := time.Now(), 0
				for i := range 60 {
					if late := time.Since(due); late > longest {
						t.Errorf("Refresh is %s late", late)
					}
					if !time.Now().Before(due) {
						if err := step("Refresh", func() error { return p.Refresh(t.Context()) }); err != nil && p.Engaged() {
							t.Error(err)
						}
						due = time.Now().Add(f.cfg.Timeout / 3)
					}
					switch i % 3 {
					case 0:
						drift, _ := p.Drift(t.Context(), f.plan(n))
						found += len(drift)
					case 1:
						_ = round()
					default:
						n.Frontends = redirecttest.Node(t, []string{fmt.Sprintf("http 10.96.1.%d:80", i)}).Frontends
						if i == 32 {
							f.must(quick.Sets.Flush("nodevoy-http4"))
						}
					}
					if i > 12 || redirected {
						quick.Holds("nodevoy-pods4", "10.2.0.1")
					}
				}
				_ = round()
				quick.Holds("nodevoy-http4", n.Frontends[0].Address.Addr().String()+",tcp:80")
				if found == 0 {
					t.Error("Drift didn't come to the quick pod")
				}
			})
		})
	}
}

// TestSlowPodsAreLater: those that a pass didn't come to are the first of the next.
func TestSlowPodsAreLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, n, _, slow := slowNode(t)
		p := f.applied(n)
		p.now = time.Now
		seen := map[int]int{}
		for i, s := range slow {
			s.before = func(ctx context.Context, _ string) error {
				f.change(func() { seen[i]++ })
				<-ctx.Done()
				return ctx.Err()
			}
		}
		f.change(func() { n.Frontends = redirecttest.Node(t, []string{"http 10.96.0.2:80"}).Frontends })
		for range 5 {
			if _, err := p.Drift(t.Context(), f.plan(n)); !errors.Is(err, errLater) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Drift: %v, want that some pods are given up and others come later", err)
			}
		}
		if len(seen) != len(slow) {
			t.Errorf("five passes came to %d pods, want %d", len(seen), len(slow))
		}
	})
}

// TestGivenUpHalfway: what was done to a pod before its time was over is not believed
// whole.
func TestGivenUpHalfway(t *testing.T) {
	for _, at := range []string{"list nft OUTPUT", "list nft NODEVOY-OUTPUT", "list legacy OUTPUT", "restore", "add nodevoy-http4", "add nodevoy-pods4", "members nodevoy-pods4"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, n, namespaces := three(t)
				p := f.pods()
				p.now = time.Now
				f.must(p.Prepare(t.Context(), f.plan(n)))
				namespaces[1].before = func(ctx context.Context, call string) error {
					if call == at {
						// What can't be interrupted takes its time, and succeeds.
						select {
						case <-ctx.Done():
						case <-time.After(2 * podTime):
						}
					}
					return ctx.Err()
				}
				err := p.Apply(t.Context(), f.plan(n))
				f.change(func() { namespaces[1].before = nil })
				if err == nil {
					// Nothing was left to do when the time was over.
					namespaces[1].Holds("nodevoy-pods4", "10.1.0.3")
				} else if !errors.Is(err, ErrPartial) || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Apply: %v", err)
				}
				<-time.After(firstPause)
				f.must(p.Apply(t.Context(), f.plan(n)))
				namespaces[1].Holds("nodevoy-http4", "10.96.0.1,tcp:80")
				namespaces[1].Holds("nodevoy-tcp4", "10.96.0.2,tcp:5432")
				namespaces[1].Holds("nodevoy-pods4", "10.1.0.3")
				if found, err := p.Drift(t.Context(), f.plan(n)); err != nil || len(found) > 0 {
					t.Errorf("found %v, %v", found, err)
				}
			})
		})
	}
}
