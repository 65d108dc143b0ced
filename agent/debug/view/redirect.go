// SPDX-License-Identifier: Apache-2.0

package view

import "time"

// RedirectPlan is what the kernel must hold, and what of it was not in place when that
// was last checked: /v1/redirect.
type RedirectPlan struct {
	At    time.Time `json:"at"`
	Phase string    `json:"phase"`
	// Reason is why the phase is not redirecting, or why the last change is not applied.
	Reason string `json:"reason,omitempty"`
	Redirect
	// Checked is when the kernel was last compared with the plan, and Drift what differed
	// then. Mended says that the plan was applied again since.
	Checked *time.Time `json:"checked,omitempty"`
	Drift   []Drift    `json:"drift"`
	Mended  bool       `json:"mended"`
	// Families are what the node's network namespace holds or, in pod mode, what that of
	// each of Pods does.
	Families []Family `json:"families"`
	// Pods are the enrolled pods, in pod mode.
	Pods []PodRules `json:"pods"`
}

// Drift is a difference between the plan and the kernel.
type Drift struct {
	// Pod is the namespace/name of the pod that it was found in; empty for the node.
	Pod string `json:"pod,omitempty"`
	// Kind is address, routing, set, members, chain, jump or foreign rule.
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Detail string `json:"detail"`
}

// Family is the part of a plan that concerns one family of addresses.
type Family struct {
	Family string `json:"family"`
	// Address is where Envoy listens.
	Address string  `json:"address"`
	Sets    []Set   `json:"sets"`
	Jumps   []Jump  `json:"jumps"`
	Chains  []Chain `json:"chains"`
}

// Set is an ipset.
type Set struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Reason string `json:"reason"`
	// Members is how many it has to hold. Those of the set of pods are of each pod's own
	// in pod mode.
	Members int `json:"members"`
	// TimeoutSeconds is for how long a member stays if it isn't renewed; 0 for ever.
	TimeoutSeconds int `json:"timeoutSeconds,omitempty"`
	Found
}

// Jump is a rule in one of the kernel's chains that leads to one of nodevoy's.
type Jump struct {
	Table  string `json:"table"`
	Parent string `json:"parent"`
	Rule
	Found
}

// Chain is one of nodevoy's chains.
type Chain struct {
	Table string `json:"table"`
	Name  string `json:"name"`
	Rules []Rule `json:"rules"`
	Found
}

// Rule is an iptables rule as iptables-save writes it, without "-A CHAIN", and why it is
// there.
type Rule struct {
	Spec   string `json:"spec"`
	Reason string `json:"reason"`
}

// Found says whether something was in place when that was last checked.
type Found struct {
	// InPlace is left out when nothing was checked yet.
	InPlace *bool `json:"inPlace,omitempty"`
	// Found is what was there instead; in pod mode, with the pods.
	Found []string `json:"found,omitempty"`
}

// PodRules is what became of the plan in a pod.
type PodRules struct {
	Namespace string   `json:"namespace"`
	Name      string   `json:"name"`
	UID       string   `json:"uid"`
	IPs       []string `json:"ips"`
	Netns     string   `json:"netns,omitempty"`
	// Redirected says whether the pod's addresses are in its set; Reason is why not.
	Redirected  bool   `json:"redirected"`
	Reason      string `json:"reason,omitempty"`
	Terminating bool   `json:"terminating,omitempty"`
}
