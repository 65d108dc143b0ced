// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// Facts are what was found on a node.
type Facts struct {
	// Version is that of the program that looked.
	Version string
	// Kernel is the kernel's release.
	Kernel string
	// Capabilities are those of the container that looked, of the ones that matter.
	Capabilities []string
	Clock        Clock
	// Agent is nil where none runs.
	Agent *Agent
	// AgentError is why an agent that runs could not be asked.
	AgentError string
	// Probe is what an agent would find on the node; nil where one runs, which has
	// found it.
	Probe *Probe
	// Ports are those of the node that somebody else listens on, of the ones that an
	// agent wants.
	Ports []string
}

// Clock is the state of the node's clock.
type Clock struct {
	// Known is whether the kernel could be asked.
	Known bool
	// Synchronized is whether something keeps the clock right.
	Synchronized bool
}

// Agent is what the node's agent and Envoy say.
type Agent struct {
	View view.Status
	// EnvoyError is why Envoy does not answer its health check.
	EnvoyError string
	// Metrics is the address at which the agent serves metrics, empty for nowhere or
	// not known, and MetricsError why it doesn't.
	Metrics      string
	MetricsError string
}

// Probe is what was found on a node without an agent.
type Probe struct {
	// Mode is the mode that an agent would take, by Mechanism and iptables Backend;
	// empty if none is possible.
	Mode, Mechanism, Backend string
	// Reasons are those for it, in a sentence each.
	Reasons []string
	// Missing is what the node lacks for any mode.
	Missing []Requirement
	// Error is why it can't be told what the node has, or of another kind.
	Error string
}

// Requirement is something that is missing.
type Requirement struct {
	What, Remedy string
}

// Level is how a line is to be taken.
type Level string

// The levels.
const (
	OK      Level = "ok"
	Warning Level = "warning"
	Failed  Level = "failed"
)

// Line is one result.
type Line struct {
	Level Level `json:"level"`
	// Topic is what it is about: node, mode, kube-proxy, agent, objects, envoy, kernel,
	// pods, metrics or clock.
	Topic string `json:"topic"`
	Text  string `json:"text"`
	// Do is what to do about it; empty if it is ok.
	Do string `json:"do,omitempty"`
}

// Report is what a node was found to be.
type Report struct {
	Node string    `json:"node"`
	At   time.Time `json:"at"`
	// Installed says whether an agent runs on the node.
	Installed bool `json:"installed"`
	// Mode is the one that the node is in, or would be.
	Mode  string `json:"mode,omitempty"`
	Lines []Line `json:"lines"`
}

// Worst is the level of the worst line.
func (r *Report) Worst() Level {
	worst := OK
	for _, l := range r.Lines {
		if l.Level == Failed || l.Level == Warning && worst == OK {
			worst = l.Level
		}
	}
	return worst
}
