// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds/server"
)

// source is where Kubernetes objects come from: an API server or a directory.
type source interface {
	// Changed fires when Inputs is worth reading again, first when every kind
	// of object has been read once.
	Changed() <-chan struct{}
	Inputs() model.Inputs
	Problems() []model.Problem
}

// configurator hands a node's view to Envoy.
type configurator interface {
	Publish(node *model.Node, targets []model.PodTarget)
	Changed() <-chan struct{}
	Status() server.Status
	// InUse are the frontends that Envoy has asked for, and Uses the same with what
	// they take, and those that it was denied. Seen is what connections to them are.
	InUse() []netip.AddrPort
	Seen() map[netip.AddrPort]model.Seen
	Uses() (uses []server.Use, denied []netip.AddrPort)
}

// redirector is what the loop redirects with: the kernel, as far as this
// generation of the agent may touch it. See handover.Fence.
type redirector interface {
	handover.Steps
	// Superseded says whether a newer agent on this node owns the rules;
	// OwnershipErr is why that can't be told, nil when it can.
	Superseded() bool
	OwnershipErr() error
	// Leftover says what an agent of the other mode left that can't be removed.
	Leftover() string
}

// The loop's clocks.
const (
	// driftInterval leaves time for the repair within the promised 5 s.
	driftInterval = 2 * time.Second
	// retryInterval is the pause after a step that failed.
	retryInterval = time.Second
	// answerPatience is how long a rebuild waits for Envoy to answer the last one.
	// Envoy would be sent nothing meanwhile, and were each answer to find the
	// next change published, nothing would ever be applied.
	answerPatience = time.Second
	// answerPoll is how often it looks; usually Envoy's answer wakes the loop.
	answerPoll = 5 * time.Millisecond
)

// loop turns changes into rounds: build, withdraw, publish, apply. It is the only
// goroutine that writes to the redirector, except that the end of Envoy's stream
// disengages it.
type loop struct {
	cfg    Config
	source source
	envoy  configurator
	kernel redirector
	// pods tells of each pod; nil in host mode.
	pods  podRedirector
	proof proof
	// leaving is what is left to kube-proxy for want of memory.
	leaving leaving
	// cpu is the processor time that the process has used.
	cpu func() time.Duration
	// builder and pace are of a run.
	builder *model.Builder
	pace    *pace
	round   round
	*reporter
	// local is what the node's kernel takes for its own.
	local localNetworks
	// resume ends the draining of an Envoy that is there already; may be nil.
	resume func(context.Context) error
	// located is when pods were last searched for.
	located time.Time
}

// run works until ctx ends. It returns nil then, and never otherwise: what
// goes wrong in a round is logged, counted, shown and tried again.
func (l *loop) run(ctx context.Context) error {
	c := l.startClocks()
	defer c.stop()
	l.builder, l.pace = model.NewBuilder(l.cfg.Model), newPace(l.cfg.Debounce)
	l.round.started = time.Now()
	l.publishState()
	var debounce <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.source.Changed():
			l.round.change(time.Now())
			if debounce == nil {
				debounce = time.After(l.pace.next(time.Now()))
			}
			continue
		case <-c.locate:
			debounce = soonIf(l.relocate(ctx), debounce)
			continue
		case <-debounce:
			if l.unanswered() {
				debounce = time.After(answerPoll)
				continue
			}
			debounce = nil
			// What Envoy has answered is applied before it is given more: else a change
			// that always comes with the answer would hold up the kernel for ever.
			l.advance(ctx)
			began := l.cpu()
			l.renew(ctx)
			l.pace.done(time.Now(), l.cpu()-began)
		case <-l.envoy.Changed():
			st := l.envoy.Status()
			l.noteNacks(st, l.round.plan)
			l.recompile(ctx, st.Refused)
			if st.Crowded > l.leaving.crowded {
				l.review(ctx)
			}
		case <-c.review.C:
			if learned := l.learn(ctx); !l.review(ctx) && !learned {
				continue
			}
		case s := <-l.leaving.sampler.results:
			l.noteSample(ctx, s)
		case r := <-l.proof.prober.results:
			l.noteProbe(ctx, r)
		case <-c.refresh.C:
			l.refresh(ctx)
		case <-c.drift.C:
			debounce = soonIf(l.checkLocal(), debounce)
			l.checkDrift(ctx)
		case <-c.retry.C:
			l.retry(ctx)
		}
		l.advance(ctx)
		l.publishState()
	}
}

// soonIf is the debounce of a change that need not wait for others, if there is one
// and none waits already.
func soonIf(changed bool, debounce <-chan time.Time) <-chan time.Time {
	if changed && debounce == nil {
		return time.After(0)
	}
	return debounce
}

// clocks are the loop's, beside the debounce; locate is nil in host mode.
type clocks struct {
	refresh, drift, retry, review *time.Ticker
	locate                        <-chan time.Time
	stop                          func()
}

func (l *loop) startClocks() clocks {
	c := clocks{
		refresh: time.NewTicker(l.cfg.Redirect.Timeout / 3), drift: time.NewTicker(driftInterval),
		retry: time.NewTicker(retryInterval), review: time.NewTicker(reviewInterval),
	}
	all := []*time.Ticker{c.refresh, c.drift, c.retry, c.review}
	if l.pods != nil {
		locate := time.NewTicker(locateInterval)
		all, c.locate = append(all, locate), locate.C
	}
	c.stop = func() {
		for _, ticker := range all {
			ticker.Stop()
		}
	}
	return c
}

// unanswered says whether a change should wait, because Envoy is still busy
// with the one before.
func (l *loop) unanswered() bool {
	st := l.envoy.Status()
	return st.Connected && !st.Settled && !st.Loading && time.Since(l.round.published) < answerPatience
}

// retry repeats what failed and has no other clock.
func (l *loop) retry(ctx context.Context) {
	if l.round.plan == nil || l.kernel.Superseded() {
		return
	}
	if l.round.prepareErr != nil {
		l.prepare(ctx)
	}
	if l.round.withdrawErr != nil {
		l.withdraw(ctx)
	}
	if l.round.served == nil {
		l.publish()
	}
}
