// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/netip"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/agent/budget"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/redirect/probe"
	"github.com/nodevoy/nodevoy/xds/server"
)

// Phase is what the agent does with enrolled pods' connections right now.
type Phase string

// The phases.
const (
	// PhaseStarting: the Kubernetes objects are not all known yet. Rules of an
	// earlier agent are left as they are, and expire by themselves.
	PhaseStarting Phase = "starting"
	// PhaseWaiting: nothing is redirected, because Envoy is not ready or rules are
	// not applied.
	PhaseWaiting Phase = "waiting for Envoy"
	// PhaseRedirecting: enrolled pods' connections go to Envoy.
	PhaseRedirecting Phase = "redirecting"
	// PhaseSuperseded: a newer agent on this node owns the rules.
	PhaseSuperseded Phase = "superseded"
)

// State is what the agent knew and had done when it was published. It is
// immutable: the loop publishes a new one, and everything that only looks
// (status, health, metrics) reads the last.
type State struct {
	At    time.Time
	Phase Phase
	// Reason says why the phase is not PhaseRedirecting, or why the last change is
	// not applied yet; empty when all is.
	Reason string
	// Node and Plan are nil while the phase is PhaseStarting.
	Node     *model.Node
	Plan     *plan.Plan
	Findings probe.Findings
	// Mode is where redirection happens, and Pods what became of each enrolled
	// pod, by UID, in pod mode; nil in host mode.
	Mode plan.Mode
	Pods map[string]pods.State
	// Leftover is why something of an agent of the other mode is still there;
	// empty when nothing is.
	Leftover string
	Envoy    server.Status
	// InUse asks for the frontends that Envoy knows, of which there may be many.
	InUse func() []netip.AddrPort
	// Ledger is which frontends are left to kube-proxy because Envoy's memory for
	// Services in use is short, of so many bytes; nil for none.
	Ledger      *budget.Ledger
	MemoryLimit int64
	// SourceProblems are those of objects that could not be read; Node has those
	// of objects that were.
	SourceProblems []model.Problem
	// ProbeErr is why the last request through Envoy's own listener failed.
	ProbeErr string
	// ObjectsRead is when every object was known for the first time, and
	// Redirecting when redirection last began; zero if never.
	ObjectsRead, Redirecting time.Time
	// Applied is when the kernel last held the whole plan; zero if never.
	Applied time.Time
	// CheckErr is why it can't be told whether the rules still hold, or who owns
	// them; empty when it can.
	CheckErr string
	// ApplyErr is why the last try of any step on the plan failed; empty when all
	// succeeded.
	ApplyErr string
	// PendingSince is when the oldest change came that is not in the kernel
	// and in Envoy yet; zero when there is none.
	PendingSince time.Time
	// Checked is when the kernel was last compared with a plan, and Drift what differed
	// then; zero if never.
	Checked time.Time
	Drift   []apply.Drift
	// DriftRepaired counts foreign edits of our rules that were mended.
	DriftRepaired int
}

// problems are those of all objects.
func (s *State) problems() []model.Problem {
	if s.Node == nil {
		return s.SourceProblems
	}
	return slices.Concat(s.SourceProblems, s.Node.Problems)
}

// usedIfShort are the frontends that Envoy knows now, if that matters to short.
func (s *State) usedIfShort() map[netip.AddrPort]bool {
	if s.Ledger == nil || s.Ledger.None() {
		return nil
	}
	return s.inUse()
}

// short is why a frontend is left to kube-proxy for want of memory in Envoy; empty
// if it is not. used has those that Envoy knows.
func (s *State) short(f *model.Frontend, used map[netip.AddrPort]bool) string {
	if s.Ledger == nil {
		return ""
	}
	return s.Ledger.Why(f, used[f.Address])
}

// inUse are the frontends that Envoy knows now.
func (s *State) inUse() map[netip.AddrPort]bool {
	known := map[netip.AddrPort]bool{}
	if s == nil || s.InUse == nil {
		return known
	}
	for _, address := range s.InUse() {
		known[address] = true
	}
	return known
}
