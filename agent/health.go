// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/debug"
)

// maxScrapes is how many may be under way; each takes time of Envoy's main thread.
const maxScrapes = 4

// idleSlack is how long the loop may take between two turns before it is taken
// for idle: it turns at least once in retryInterval.
const idleSlack = 10 * retryInterval

// stuck says that the agent's own loop has not moved for longer than limit; empty
// when it has. A restart cures nothing else: what Envoy or the kernel lacks is for
// ready to say.
func (s *State) stuck(now time.Time, limit time.Duration) string {
	if s == nil {
		return ""
	}
	if idle := now.Sub(s.At); idle > limit {
		return fmt.Sprintf("the loop has not moved for %s", idle.Round(time.Second))
	}
	return ""
}

// pending is the age of the oldest change that is not in the kernel and in Envoy,
// zero when there is none. A loop that doesn't move may not have seen the oldest:
// it counts from when it last moved.
func (s *State) pending(now time.Time) time.Duration {
	if s == nil {
		return 0
	}
	age := time.Duration(0)
	if !s.PendingSince.IsZero() {
		age = now.Sub(s.PendingSince)
	}
	if idle := now.Sub(s.At); idle > idleSlack {
		age = max(age, idle)
	}
	return age
}

// ready says why the agent is not doing its work; empty when it is. One that a
// newer agent has taken over from stands by, which is all it has to do: were it
// unready, a rolling update would delete it at once, before the newer one has
// been ready for as long as it has to be. A change may wait for as long as limit.
func (s *State) ready(now time.Time, limit time.Duration) string {
	switch {
	case s == nil:
		return "no round yet"
	case s.Phase == PhaseSuperseded:
		return ""
	case s.Phase != PhaseRedirecting:
		return string(s.Phase) + ": " + s.Reason
	case s.ApplyErr != "":
		return s.ApplyErr
	case s.CheckErr != "":
		return "can't tell whether rules are in place: " + s.CheckErr
	case s.refusedEverywhere() != "":
		return s.refusedEverywhere()
	case s.pending(now) > limit:
		return fmt.Sprintf("a change has waited for %s: %s", s.pending(now).Round(time.Second), s.Reason)
	}
	return ""
}

// refusedEverywhere says why no enrolled pod is redirected when Envoy refuses to
// listen in each of them; empty when not in each, or there is but one: a single
// pod can take Envoy's ports, and must not make the node unready.
func (s *State) refusedEverywhere() string {
	if s.Plan == nil {
		return ""
	}
	why, refused := "", 0
	for i := range s.Plan.Pods {
		switch p := &s.Plan.Pods[i]; {
		case p.Terminating:
		case p.Blocked == "", s.Pods[p.UID].Redirecting:
			return ""
		default:
			why, refused = cmp.Or(why, p.Blocked), refused+1
		}
	}
	if refused < 2 {
		return ""
	}
	return fmt.Sprintf("Envoy refuses to listen in all %d enrolled pods: %s", refused, why)
}

// healthServer serves /healthz, /readyz and /metrics.
type healthServer struct {
	address    string
	state      *atomic.Pointer[State]
	stuckAfter time.Duration
	gatherer   prometheus.Gatherer
	log        *zap.Logger
}

// run serves until ctx ends; with an empty address it only waits.
func (h *healthServer) run(ctx context.Context) error {
	if h.address == "" {
		<-ctx.Done()
		return nil
	}
	b := binder{address: h.address, what: "metrics and health", log: h.log}
	return b.serve(ctx, func(ctx context.Context, ln net.Listener) error { return debug.Serve(ctx, ln, h.handler()) })
}

// checks are the health checks, as of the last state.
func (h *healthServer) checks() debug.Health {
	return debug.Health{
		Live:  func() string { return h.state.Load().stuck(time.Now(), h.stuckAfter) },
		Ready: func() string { return h.state.Load().ready(time.Now(), h.stuckAfter) },
	}
}

func (h *healthServer) metrics() http.Handler {
	return promhttp.HandlerFor(h.gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
}

func (h *healthServer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h.metrics())
	h.checks().Register(mux)
	return mux
}
