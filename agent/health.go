// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/agent/debug"
)

const (
	// bindInterval is the pause between two tries to open the address.
	bindInterval = time.Second
	// bindPatience is how long the address may be taken before that is worth a
	// word, and then another: longer than an older agent should take to drain.
	bindPatience = 2 * time.Minute
)

// stuck says what has not moved for too long; empty when nothing is stuck. An
// Envoy that is not there is no reason to restart the agent, and no reason here.
func (s *State) stuck(now time.Time, limit time.Duration) string {
	if s == nil {
		return ""
	}
	if idle := now.Sub(s.At); idle > limit {
		return fmt.Sprintf("the loop has not moved for %s", idle.Round(time.Second))
	}
	if s.Envoy.Connected && !s.PendingSince.IsZero() {
		if wait := now.Sub(s.PendingSince); wait > limit {
			return fmt.Sprintf("a change has waited for %s: %s%s", wait.Round(time.Second), s.Reason, s.ApplyErr)
		}
	}
	return ""
}

// ready says why the agent is not doing its work; empty when it is. One that a
// newer agent has taken over from stands by, which is all it has to do: were it
// unready, a rolling update would delete it at once, before the newer one has
// been ready for as long as it has to be.
func (s *State) ready() string {
	switch {
	case s == nil:
		return "no round yet"
	case s.Phase == PhaseSuperseded:
		return ""
	case s.Phase != PhaseRedirecting:
		return string(s.Phase) + ": " + s.Reason
	case s.ApplyErr != "":
		return s.ApplyErr
	}
	return ""
}

// healthServer serves /healthz, /readyz and /metrics.
type healthServer struct {
	address    string
	state      *atomic.Pointer[State]
	stuckAfter time.Duration
	registry   *prometheus.Registry
	log        *zap.Logger
}

// run serves until ctx ends; with an empty address it only waits.
func (h *healthServer) run(ctx context.Context) error {
	if h.address == "" {
		<-ctx.Done()
		return nil
	}
	ln, err := h.listen(ctx)
	if err != nil || ln == nil {
		return err
	}
	return debug.Serve(ctx, ln, h.handler())
}

// listen waits for the address while somebody else has it: usually an older
// agent on this node, which may stand by for as long as a rollout takes. It
// returns nil without an error when ctx ended meanwhile.
func (h *healthServer) listen(ctx context.Context) (net.Listener, error) {
	retry := time.NewTicker(bindInterval)
	defer retry.Stop()
	patience := time.NewTicker(bindPatience)
	defer patience.Stop()
	for {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", h.address)
		if err == nil {
			return ln, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("listen for metrics and health: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-patience.C:
			h.log.Warn("metrics and health are not served: another process has the address", zap.Error(err))
		case <-retry.C:
		}
	}
}

func (h *healthServer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, h.state.Load().stuck(time.Now(), h.stuckAfter))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, h.state.Load().ready())
	})
	return mux
}

func answer(w http.ResponseWriter, problem string) {
	if problem != "" {
		http.Error(w, problem, http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintln(w, "ok") // The client is gone if this fails; nobody is left to tell.
}
