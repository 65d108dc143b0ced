// SPDX-License-Identifier: Apache-2.0

package debug

import "time"

// View is what `nodevoy status` shows, and its -o json prints. Fields are only
// ever added.
type View struct {
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
	Pods             []Pod      `json:"pods"`
	// Frontends are those Envoy has asked for, unless all were asked for.
	Frontends []Frontend `json:"frontends"`
	// FrontendCount counts all frontends of the cluster by capture class;
	// "bypass" are those left to kube-proxy.
	FrontendCount map[string]int `json:"frontendCount"`
	// Memory is what Services in use take of Envoy's memory.
	Memory Memory `json:"memory"`
	// Limits are what clients, servers and Services may take of Envoy, if all was
	// asked for.
	Limits []Limit `json:"limits,omitempty"`
	// Watches are how the reading of each kind of objects goes.
	Watches  []Watch  `json:"watches"`
	Problems []string `json:"problems"`
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
	// namespace/name of their Service.
	Left map[string]int `json:"left,omitempty"`
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

// Pod is a pod of this node and whether it is enrolled.
type Pod struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	IPs       []string `json:"ips"`
	Enrolled  bool     `json:"enrolled"`
	// Reason is why it is enrolled, or why not.
	Reason string `json:"reason"`
	// Redirected says whether new connections go to Envoy; NotRedirected is why
	// those of an enrolled pod, or of one of its addresses, do not.
	Redirected    bool   `json:"redirected"`
	NotRedirected string `json:"notRedirected,omitempty"`
	// Netns is the path of the pod's network namespace, where it was looked for.
	Netns string `json:"netns,omitempty"`
}

// Frontend is an address of a Service port and what answers there.
type Frontend struct {
	Address string `json:"address"`
	Service string `json:"service"`
	Class   string `json:"class"`
	Why     string `json:"why"`
	// Bypass is why connections are left to kube-proxy; empty when they are not.
	Bypass   string    `json:"bypass,omitempty"`
	InUse    bool      `json:"inUse"`
	Backends []Backend `json:"backends"`
}

// Backend is one endpoint of a frontend.
type Backend struct {
	Address     string `json:"address"`
	Pod         string `json:"pod,omitempty"`
	Node        string `json:"node,omitempty"`
	Zone        string `json:"zone,omitempty"`
	Terminating bool   `json:"terminating,omitempty"`
}
