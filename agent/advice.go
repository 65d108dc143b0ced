// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/advise"
	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/kernelflow"
	"github.com/nodevoy/nodevoy/redirect/conntrack"
)

// maxAdviseFlows is how many of the last flows an Advice is made of.
const maxAdviseFlows = 5000

// advise answers what enrolling would change. The query may have long, the age from which
// a connection is long-lived.
func (k *kernelFlows) advise(_ context.Context, query url.Values) (any, error) {
	in := advise.Input{Now: time.Now(), Long: advise.Long, Note: k.note()}
	if text := query.Get("long"); text != "" {
		var err error
		if in.Long, err = time.ParseDuration(text); err != nil || in.Long < 0 {
			return nil, fmt.Errorf("%w: long %q: want a duration such as 30s", debug.ErrInvalid, text)
		}
	}
	state := k.state.Load()
	if state == nil || state.Node == nil {
		return nil, fmt.Errorf("%w: the agent has not read all Kubernetes objects yet", debug.ErrUnavailable)
	}
	in.Node = state.Node
	in.Flows = k.log.Last(maxAdviseFlows, flow.Filter{Origin: flow.OriginKernel})
	var err error
	in.Open = func(yield func(*flow.Flow) bool) { err = k.open(state, in.Now, yield) }
	advice := advise.Advise(in)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", debug.ErrUnavailable, err)
	}
	return advice, nil
}

// status is why connections are missing; empty if none is known to be.
func (k *kernelFlows) status() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if state := k.state.Load(); k.why == "" && state != nil {
		return state.Findings.Untracked
	}
	return k.why
}

// note is why connections may be missing in an Advice.
func (k *kernelFlows) note() string {
	var notes []string
	if why := k.status(); why != "" {
		notes = append(notes, why)
	}
	counts := k.log.Counts()
	if counts.Lost[flow.LossSampled] > 0 || counts.Lost[flow.LossOverrun] > 0 {
		notes = append(notes, "there were more connections than --kernel-flows allows: shares are of some of them, and since when others are open is not known")
	}
	return strings.Join(notes, "; ")
}

// open gives the TCP connections of the node's pods that are established, and not
// redirected, with names, and the time at which they began if that is known.
func (k *kernelFlows) open(state *State, now time.Time, found func(*flow.Flow) bool) error {
	pods := podAddresses(state.Node)
	envoys := redirected(k.cfg, state, &envoyBackends{})
	more := true
	return conntrack.List(func(e *conntrack.Entry) {
		if !more || e.State != conntrack.StateEstablished || !pods[e.From.Addr()] || envoys.Has(e) {
			return
		}
		f := kernelflow.Open(e)
		k.mu.Lock()
		if since, known := k.tracker.Since(e.ID); known {
			f.Time = since
		}
		k.name(&f, now)
		k.mu.Unlock()
		more = found(&f)
	})
}
