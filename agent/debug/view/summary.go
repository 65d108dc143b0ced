// SPDX-License-Identifier: Apache-2.0

package view

import "time"

// Status is what `nodevoy status` shows, and its -o json prints.
type Status struct {
	Summary
	Pods []Pod `json:"pods"`
	// Frontends are those Envoy has asked for, unless all were asked for.
	Frontends []Frontend `json:"frontends"`
}

// Summary is the node at a glance: /v1/summary. Its size does not grow with the cluster.
type Summary struct {
	Node   string    `json:"node"`
	At     time.Time `json:"at"`
	Phase  string    `json:"phase"`
	Reason string    `json:"reason,omitempty"`
	// NotReady is why this node does not redirect, Stuck what has not moved for
	// too long; each is empty when all is well.
	NotReady string `json:"notReady,omitempty"`
	Stuck    string `json:"stuck,omitempty"`
	// PendingSince is when the oldest change came that is not in force yet.
	PendingSince *time.Time `json:"pendingSince,omitempty"`
	// ObjectsRead is when every object was known for the first time, and
	// RedirectingSince when redirection last began.
	ObjectsRead      *time.Time `json:"objectsRead,omitempty"`
	RedirectingSince *time.Time `json:"redirectingSince,omitempty"`
	Envoy            Envoy      `json:"envoy"`
	Redirect         Redirect   `json:"redirect"`
	PodCount         PodCount   `json:"podCount"`
	// FrontendCount counts all frontends of the cluster by capture class;
	// "bypass" are those left to kube-proxy.
	FrontendCount map[string]int `json:"frontendCount"`
	// Memory is what Services in use take of Envoy's memory.
	Memory Memory `json:"memory"`
	// Limits are what clients, servers and Services may take of Envoy.
	Limits []Limit `json:"limits"`
	// Watches are how the reading of each kind of objects goes.
	Watches []Watch `json:"watches"`
	// KernelFlows is why flows don't show connections past Envoy, or not all of them;
	// empty if they do.
	KernelFlows string `json:"kernelFlows,omitempty"`
	// Problems are the first of the objects that can't be used as written; ProblemCount
	// counts all.
	Problems     []string `json:"problems"`
	ProblemCount int      `json:"problemCount"`
}

// PodCount counts this node's pods.
type PodCount struct {
	All      int `json:"all"`
	Enrolled int `json:"enrolled"`
	// Redirected are the enrolled pods whose new connections go to Envoy.
	Redirected int `json:"redirected"`
}

// Limit is a bound of what somebody can make Envoy hold: of what, how much, and what
// happens above it.
type Limit struct {
	What  string `json:"what"`
	Most  string `json:"most"`
	Above string `json:"above"`
}

// Watch is how the reading of one kind of objects goes.
type Watch struct {
	Kind string `json:"kind"`
	// Synced says that every object has been read once, Absent that the kind is
	// not served, which it need not be.
	Synced bool `json:"synced"`
	Absent bool `json:"absent,omitempty"`
	// Error is why the kind can't be read or followed, Since since when.
	Error string     `json:"error,omitempty"`
	Since *time.Time `json:"since,omitempty"`
}

// Envoy is the state of the configuration stream and of the data path.
type Envoy struct {
	// Version is Envoy's own word; empty when it has said none.
	Version   string     `json:"version,omitempty"`
	Connected bool       `json:"connected"`
	Since     *time.Time `json:"since,omitempty"`
	// ListenersAcked says that Envoy accepted the current listeners and routes.
	ListenersAcked bool `json:"listenersAcked"`
	// Unanswered counts responses Envoy has neither accepted nor refused yet.
	Unanswered int `json:"unanswered"`
	// ProbeError is why the last request through Envoy's listener failed.
	ProbeError string `json:"probeError,omitempty"`
	Nacks      int    `json:"nacks"`
	// LastNacks are the newest refusals, oldest first.
	LastNacks []Nack `json:"lastNacks,omitempty"`
}

// Nack is one refusal by Envoy.
type Nack struct {
	At     time.Time `json:"at"`
	Type   string    `json:"type"`
	Detail string    `json:"detail"`
}

// Memory is what Services in use take of Envoy's memory, by estimate, in bytes.
type Memory struct {
	Used int64 `json:"used"`
	// Limit is what they may take; 0 for no limit.
	Limit int64 `json:"limit"`
	// Left counts the frontends that are left to kube-proxy because of it, by the
	// namespace/name of their Service: of the Services with most. LeftCount counts the
	// frontends of all LeftServices.
	Left         map[string]int `json:"left,omitempty"`
	LeftCount    int            `json:"leftCount"`
	LeftServices int            `json:"leftServices"`
}

// Redirect is what is in the kernel.
type Redirect struct {
	// Mode is where redirection happens: pod or host.
	Mode string `json:"mode"`
	// Mechanism is how host mode redirects; empty in pod mode.
	Mechanism string `json:"mechanism"`
	Backend   string `json:"backend"`
	// Why are the findings that led to the mode and the mechanism.
	Why []string `json:"why"`
	// Rules counts the rules in nodevoy's own chains, jumps included.
	Rules   int        `json:"rules"`
	Applied *time.Time `json:"applied,omitempty"`
	Error   string     `json:"error,omitempty"`
	// CheckError is why it can't be told whether the rules still hold.
	CheckError    string `json:"checkError,omitempty"`
	DriftRepaired int    `json:"driftRepaired"`
	// Leftover is why something of an agent of the other mode is still there.
	Leftover string `json:"leftover,omitempty"`
}
