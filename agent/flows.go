// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/kernelflow"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

const (
	// maxFlows, maxSampled and maxFailed are how many flows Envoy sends in a second at
	// most: while somebody follows, and else of the share that is set, and of those that
	// failed. A flow takes the agent some 10 µs.
	maxFlows, maxSampled, maxFailed = 10_000, 500, 200
	// flowRateInterval is how often it is seen whether there are too many.
	flowRateInterval = time.Second
)

// FlowConfig says which flows are kept.
type FlowConfig struct {
	// Share is which of them Envoy sends while nobody follows.
	Share flow.Share
	// Kept is how many of the last there are.
	Kept int
	// Query is set to keep the queries of paths.
	Query bool
	// Kernel is how many connections past Envoy are taken from the kernel in a second.
	Kernel kernelflow.Rate
}

// flowReceiver takes what Envoy sends, names it and adds it to the log, and tells Envoy
// how much to send.
type flowReceiver struct {
	cfg   FlowConfig
	log   *flow.Log
	state *atomic.Pointer[State]
	send  func(xds.FlowShares)
	// names are those of the node as it was when the last flow came.
	names atomic.Pointer[flowNames]
	// seen and failed count flows since the last look at the rate.
	seen, failed atomic.Int64
	all, bad     flow.Rate
}

// flowNames are the names of a node.
type flowNames struct {
	node  *model.Node
	namer *flow.Namer
}

// newFlowReceiver registers its metrics with reg. send is told the shares of flows that
// Envoy sends.
func newFlowReceiver(cfg FlowConfig, state *atomic.Pointer[State], reg prometheus.Registerer, send func(xds.FlowShares)) *flowReceiver {
	r := &flowReceiver{cfg: cfg, log: flow.NewLog(cfg.Kept), state: state, send: send, bad: flow.Rate{Most: maxFailed}}
	reg.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "nodevoy", Name: "flows_total", Help: "Flows that the agent was sent.",
		}, func() float64 { return float64(r.log.Counts().Added) }),
		lossCounter(r.log, flow.LossFollower, "flows_lost_total", "Flows that somebody who follows them did not take in time."),
		lossCounter(r.log, flow.LossOverrun, "flows_overrun_total", "Flows of the kernel that the agent did not take in time."),
		lossCounter(r.log, flow.LossSampled, "flows_sampled_out_total", "Flows that were not sent as there were too many, by estimate."),
	)
	return r
}

func lossCounter(log *flow.Log, why flow.Loss, name, help string) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "nodevoy", Name: name, Help: help},
		func() float64 { return float64(log.Counts().Lost[why]) })
}

// receive is called by the xds server, concurrently.
func (r *flowReceiver) receive(flows []flow.Flow) {
	namer, failed := r.namer(), int64(0)
	for i := range flows {
		namer.Name(&flows[i])
		if flows[i].Failed() {
			failed++
		}
	}
	r.seen.Add(int64(len(flows)))
	r.failed.Add(failed)
	r.log.Add(flows...)
}

// namer is that of the present node.
func (r *flowReceiver) namer() *flow.Namer {
	var node *model.Node
	if state := r.state.Load(); state != nil {
		node = state.Node
	}
	names := r.names.Load()
	if names == nil || names.node != node {
		names = &flowNames{node: node, namer: flow.NewNamer(node)}
		r.names.Store(names)
	}
	return names.namer
}

// run tells Envoy what to send until ctx ends.
func (r *flowReceiver) run(ctx context.Context) error {
	tick := time.NewTicker(flowRateInterval)
	defer tick.Stop()
	last := time.Now()
	r.bad.Want(flow.All)
	for {
		r.want()
		r.send(xds.FlowShares{All: r.all.Share(), Failed: r.bad.Share()})
		select {
		case <-ctx.Done():
			return nil
		case <-r.log.Changed():
		case now := <-tick.C:
			r.adapt(now.Sub(last))
			last = now
		}
	}
}

// want chooses the share of all flows that somebody wants now.
func (r *flowReceiver) want() {
	share, most := uint32(r.cfg.Share), float64(maxSampled)
	if r.log.Followers() > 0 {
		share, most = flow.All, maxFlows
	}
	// Once: a rate that is wanted anew begins anew.
	r.all.Want(share)
	r.all.Most = most
}

// adapt looks at what came in a time.
func (r *flowReceiver) adapt(in time.Duration) {
	lost := r.all.Saw(int(r.seen.Swap(0)), in)
	if bad := r.bad.Saw(int(r.failed.Swap(0)), in); r.all.Share() < flow.All {
		lost = max(lost, bad)
	}
	if lost > 0 {
		r.log.Lose(flow.LossSampled, lost)
	}
}
