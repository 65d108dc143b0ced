// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/kernelflow"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/conntrack"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

const (
	// kernelPause is how long events gather in the kernel before they are read: waking up
	// for each costs more than reading it.
	kernelPause = 100 * time.Millisecond
	// kernelTick is how often it is seen whether the node's pods have changed.
	kernelTick = 200 * time.Millisecond
	// drainTime is how long what the kernel has handed over is waited for.
	drainTime = 5 * time.Millisecond
	// kernelRetry is the pause after events could not be had.
	kernelRetry = time.Minute
)

// kernelFlows adds to the log what the kernel tracks of the node's pods and Envoy doesn't
// report.
type kernelFlows struct {
	most  kernelflow.Rate
	log   *flow.Log
	state *atomic.Pointer[State]
	namer func() *flow.Namer
	zap   *zap.Logger
	cfg   plan.Config

	// mu guards the following: advise reads it, too.
	mu      sync.Mutex
	tracker *kernelflow.Tracker
	names   directory
	// why says why there are no events; empty if there are.
	why string

	// Of run alone: the node as it was last seen, the pods that the filter has, the rate,
	// beginnings since it was last adapted, Envoy's own included, and told ones, and what
	// was read.
	node       *model.Node
	pods       []model.Pod
	sources    map[netip.Addr]bool
	redirected kernelflow.Redirected
	backends   envoyBackends
	rate       flow.Rate
	events     int
	began      int
	adapted    time.Time
	batch      []flow.Flow
}

func newKernelFlows(most kernelflow.Rate, cfg plan.Config, flows *flowReceiver, log *zap.Logger) *kernelFlows {
	k := &kernelFlows{
		most: most, log: flows.log, state: flows.state, namer: flows.namer, zap: log, cfg: cfg,
		tracker: kernelflow.NewTracker(), why: "the agent has just started",
	}
	if most == 0 {
		k.why = "off by --kernel-flows"
	}
	return k
}

// run reads events until ctx ends. That there are none is no failure of the agent's.
func (k *kernelFlows) run(ctx context.Context) error {
	for k.most > 0 && ctx.Err() == nil {
		err := k.listen(ctx)
		if ctx.Err() != nil {
			break
		}
		k.zap.Warn("no flows of the kernel", zap.Error(err))
		k.mu.Lock()
		k.why = err.Error()
		k.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(kernelRetry):
		}
	}
	<-ctx.Done()
	return nil
}

// checkEvents says why the node's conntrack makes no events, if it is known to make none.
func checkEvents() error {
	const dir = "/proc/sys/net/netfilter/"
	value, err := os.ReadFile(dir + "nf_conntrack_events")
	_, tracks := os.Stat(dir + "nf_conntrack_max")
	switch {
	case err == nil && strings.TrimSpace(string(value)) == "0":
		return errors.New("the node's setting net.netfilter.nf_conntrack_events is 0")
	case errors.Is(err, os.ErrNotExist) && tracks == nil:
		return errors.New("the node's kernel makes no events of connections (CONFIG_NF_CONNTRACK_EVENTS)")
	}
	return nil
}

// listen reads events until ctx ends, or they can't be had.
func (k *kernelFlows) listen(ctx context.Context) error {
	if err := checkEvents(); err != nil {
		return err
	}
	l, err := conntrack.Listen(conntrack.Buffer)
	if err != nil {
		return err
	}
	stop := l.CloseAfter(ctx)
	defer func() {
		if stop() {
			_ = l.Close() // It is only read from.
		}
	}()
	k.node, k.pods, k.sources, k.rate, k.adapted = nil, nil, nil, flow.Rate{Most: float64(k.most)}, time.Now()
	k.rate.Want(flow.All)
	k.mu.Lock()
	k.why = ""
	k.mu.Unlock()
	for ctx.Err() == nil {
		if err := k.look(l, time.Now()); err != nil {
			return err
		}
		if err := k.read(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// read takes the events of a tick.
func (k *kernelFlows) read(ctx context.Context, l *conntrack.Listener) error {
	for until := time.Now().Add(kernelTick); time.Now().Before(until) && ctx.Err() == nil; {
		if err := k.take(l, until); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(kernelPause):
		}
	}
	return nil
}

// take waits for events and adds them to the log.
func (k *kernelFlows) take(l *conntrack.Listener, until time.Time) error {
	k.batch = k.batch[:0]
	lost, err := l.Read(until, k.event)
	if lost > 0 {
		k.log.Lose(flow.LossOverrun, lost)
	}
	k.log.Add(k.batch...)
	return err
}

// look does what is due besides: it follows the node's pods and the rate, and tells what
// has waited.
func (k *kernelFlows) look(l *conntrack.Listener, now time.Time) error {
	changed, err := k.follow(now)
	if changed && err == nil {
		err = k.filter(l)
	}
	if took := now.Sub(k.adapted); took >= flowRateInterval && err == nil {
		k.adapted = now
		err = k.adapt(l, took)
	}
	k.mu.Lock()
	flows := k.tracker.Flush(now)
	for i := range flows {
		k.name(&flows[i], now)
	}
	k.mu.Unlock()
	k.log.Add(flows...)
	return err
}

// adapt changes the share of events that the kernel hands over, by how many came.
func (k *kernelFlows) adapt(l *conntrack.Listener, took time.Duration) error {
	share := k.rate.Share()
	k.rate.Saw(k.events, took)
	if k.rate.Share() != share {
		// What was handed over before is of the share before.
		if err := k.filter(l); err != nil {
			return err
		}
		if err := k.take(l, time.Now().Add(drainTime)); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	if left := uint64(k.began) * uint64(flow.All-share) / uint64(share); left > 0 {
		k.log.Lose(flow.LossSampled, left)
	}
	k.events, k.began = 0, 0
	return nil
}

// filter has the kernel hand over a share of the events of the node's pods.
func (k *kernelFlows) filter(l *conntrack.Listener) error {
	filter := conntrack.Filter{Except: k.redirected.Listeners, Share: uint32(uint64(k.rate.Share()) * conntrack.Whole / flow.All)}
	for ip := range k.sources {
		filter.Sources = append(filter.Sources, ip)
	}
	return l.SetFilter(filter)
}

// follow says whether other addresses are the pods' since the last look.
func (k *kernelFlows) follow(now time.Time) (changed bool, err error) {
	state := k.state.Load()
	if state == nil || state.Node == nil {
		return false, nil
	}
	if k.node != state.Node {
		k.node, k.redirected = state.Node, redirected(k.cfg, state, &k.backends)
	}
	pods := state.Node.Pods // The same list as long as nothing changes.
	if len(pods) == len(k.pods) && (len(pods) == 0 || &pods[0] == &k.pods[0]) {
		return false, nil
	}
	first := len(k.sources) == 0
	k.pods, k.sources = pods, podAddresses(state.Node)
	if first && len(k.sources) > 0 {
		err = k.seeAll(now)
	}
	return true, err
}

// seeAll notes what began before there were events.
func (k *kernelFlows) seeAll(now time.Time) error {
	return conntrack.List(func(e *conntrack.Entry) {
		if k.sources[e.From.Addr()] && !e.State.Over() {
			k.mu.Lock()
			k.tracker.See(e, now)
			k.mu.Unlock()
		}
	})
}

// event takes an event of the kernel.
func (k *kernelFlows) event(e *conntrack.Event) {
	if !k.sources[e.From.Addr()] {
		return
	}
	if e.Kind == conntrack.Began {
		k.events++
	}
	if k.redirected.Has(&e.Entry) {
		return
	}
	if e.Kind == conntrack.Began {
		k.began++
	}
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, f := range k.tracker.Event(e, now) {
		k.name(&f, now)
		k.batch = append(k.batch, f)
	}
}

// name gives a flow its names. The caller holds mu.
func (k *kernelFlows) name(f *flow.Flow, now time.Time) {
	k.namer().Name(f)
	if state := k.state.Load(); state != nil && state.Node != nil {
		k.names.name(f, state.Node, now)
	}
}

// podAddresses are those of all pods of a node.
func podAddresses(node *model.Node) map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for i := range node.Pods {
		for _, ip := range node.Pods[i].IPs {
			all[ip] = true
		}
	}
	return all
}

// redirected says which connections are Envoy's.
func redirected(cfg plan.Config, state *State, backends *envoyBackends) kernelflow.Redirected {
	r := kernelflow.Redirected{}
	for _, f := range family.All() {
		r.Listeners = append(r.Listeners, cfg.Address(f))
	}
	if state.Mode != plan.PodMode {
		return r
	}
	r.Pods = map[netip.Addr]bool{}
	for i := range state.Node.Pods {
		for _, ip := range state.Node.Pods[i].IPs {
			r.Pods[ip] = state.Node.Pods[i].Enrolled
		}
	}
	r.Backend = func(at netip.AddrPort) bool { return backends.has(at, state, time.Now()) }
	return r
}
