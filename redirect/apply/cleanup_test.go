// SPDX-License-Identifier: Apache-2.0

package apply_test

import (
	"errors"
	"testing"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// TestCleanupDisengages: also where others have removed the rules already.
func TestCleanupDisengages(t *testing.T) {
	for what, in := range map[string]bool{"host": false, "pod": true} {
		t.Run(what, func(t *testing.T) {
			b := redirecttest.New(t)
			n := redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
			a, desired := b.Applier(), b.Plan(n)
			if in {
				b.Cfg.Mode = plan.PodMode
				a = apply.NewInPod(b.Cfg, b.Kernel(), &apply.Group{}, zap.NewNop())
				desired = &plan.Plan{Mode: plan.PodMode, Families: plan.Compile(n, b.Cfg).Pods[0].Families}
			}
			b.Must(a.Apply(t.Context(), desired))
			if !a.Engaged() {
				t.Fatal("not engaged")
			}
			for _, fake := range b.Tables {
				for _, h := range plan.Hooks() {
					if _, err := fake.List(t.Context(), h.Table, h.Chain); err != nil {
						continue
					}
					text := "*" + h.Table + "\n"
					if h.Parent != "" {
						text += "-F " + h.Parent + "\n"
					}
					b.Must(fake.Restore(t.Context(), text+"-F "+h.Chain+"\n-X "+h.Chain+"\nCOMMIT\n"))
				}
			}
			b.Must(a.Cleanup(t.Context()))
			if err := a.Refresh(t.Context()); !errors.Is(err, apply.ErrDisengaged) || a.Engaged() {
				t.Errorf("Refresh: %v, engaged %v", err, a.Engaged())
			}
		})
	}
}

// TestPolicyRuleStays: what can't be removed is said, of either family.
func TestPolicyRuleStays(t *testing.T) {
	for _, f := range family.All() {
		t.Run(f.String(), func(t *testing.T) {
			b := redirecttest.New(t)
			n := redirecttest.Node(t, []string{"http 10.96.0.1:80"}, "10.1.0.2")
			b.Cfg.Mechanism = plan.TPROXY
			b.Applied(n)
			b.Network.Fault = func(call string, of family.Family) error {
				if call == "DeleteRule" && of == f {
					return redirecttest.ErrRefused
				}
				return nil
			}
			b.Cfg.Mechanism = plan.DNAT
			a := b.Applier()
			if err := a.Apply(t.Context(), b.Plan(n)); !errors.Is(err, redirecttest.ErrRefused) || a.Engaged() {
				t.Errorf("Apply: %v, engaged %v", err, a.Engaged())
			}
			if err := a.Cleanup(t.Context()); !errors.Is(err, redirecttest.ErrRefused) {
				t.Errorf("Cleanup: %v", err)
			}
			b.Network.Fault = nil
			b.Must(a.Apply(t.Context(), b.Plan(n)))
			b.Must(a.Cleanup(t.Context()))
		})
	}
}
