// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/xds"
)

// TestFlowsAreSlowedDown: what Envoy is asked for follows the number of followers, and an
// Envoy that sends too much stays slowed down while somebody follows.
func TestFlowsAreSlowedDown(t *testing.T) {
	r := newFlowReceiver(FlowConfig{Kept: 1}, &atomic.Pointer[State]{}, prometheus.NewRegistry(), func(xds.FlowShares) {})
	r.want()
	if share := r.all.Share(); share != 0 {
		t.Errorf("the share is %d while nobody follows", share)
	}
	follower := r.log.Follow(flow.Filter{})
	r.want()
	if share := r.all.Share(); share != flow.All {
		t.Errorf("the share is %d while somebody follows", share)
	}
	r.seen.Store(10 * maxFlows)
	r.adapt(time.Second)
	r.want()
	if share := r.all.Share(); share > flow.All/10 {
		t.Errorf("the share is %d after ten times too many came, want a tenth at most", share)
	}
	follower.Close()
	r.want()
	if share := r.all.Share(); share != 0 {
		t.Errorf("the share is %d when nobody follows any more", share)
	}
}
