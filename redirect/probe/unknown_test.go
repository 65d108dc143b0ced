// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// TestBusy: a lock that another process holds is not a requirement that is missing.
// The findings are those of the same node without it.
func TestBusy(t *testing.T) {
	for _, mode := range []plan.Mode{plan.HostMode, plan.PodMode, plan.AutoMode} {
		for name, held := range map[string]time.Duration{"for a while": 20 * time.Second, "on and on": time.Hour} {
			t.Run(mode.String()+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b, f := redirecttest.New(t), newFakeInfo(t)
					b.Cfg.Mode = mode
					run := func() (Findings, error) { return RunWith(t.Context(), b.Cfg, b.Kernel(), f) }
					want, err := run()
					b.Must(err)
					begin := time.Now()
					for _, fake := range b.Tables {
						fake.Busy = func() bool { return time.Since(begin) < held }
					}
					got, err := retryBusy(t.Context(), zap.NewNop(), run)
					if held < busyLimit {
						b.Must(err)
						if d := cmp.Diff(want, got); d != "" {
							t.Errorf("findings (-free +busy):\n%s", d)
						}
						return
					}
					var missing *MissingRequirement
					if !errors.Is(err, iptables.ErrBusy) || errors.As(err, &missing) {
						t.Errorf("error %v, want only ErrBusy", err)
					}
					if took := time.Since(begin); took < busyLimit || took > 2*busyLimit {
						t.Errorf("given up after %v", took)
					}
				})
			})
		}
	}
}

// TestBusyUntilTheEnd: an agent that is to end doesn't wait.
func TestBusyUntilTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := retryBusy(ctx, zap.NewNop(), func() (Findings, error) { return Findings{}, iptables.ErrBusy })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
