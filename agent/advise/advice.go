// SPDX-License-Identifier: Apache-2.0

package advise

import (
	"time"

	"github.com/nodevoy/nodevoy/agent/flow"
)

// Advice is what enrolling would change, as far as one node has seen.
type Advice struct {
	Node string    `json:"node"`
	At   time.Time `json:"at"`
	// Connections is how many open TCP connections to Services were looked at.
	Connections int `json:"connections"`
	// Note is why connections may be missing; empty if none is known to be.
	Note string `json:"note,omitempty"`
	// Stuck are the callers whose long-lived connections to a Service all lead to one of
	// its backends.
	Stuck []Stuck `json:"stuck"`
	// Services are the Service ports that pods of the node have called past Envoy.
	Services []Service `json:"services"`
	// Namespaces are those of the node's pods.
	Namespaces []Namespace `json:"namespaces"`
}

// Stuck is a caller whose long-lived connections to a Service all lead to one backend.
type Stuck struct {
	Caller  flow.Peer    `json:"caller"`
	Service flow.Service `json:"service"`
	Backend flow.Peer    `json:"backend"`
	// Connections is how many there are, and Since when the oldest began, or was first
	// seen; without it, that is not known.
	Connections int        `json:"connections"`
	Since       *time.Time `json:"since,omitempty"`
	// Backends is how many the Service has.
	Backends int `json:"backends"`
	// Would says what enrolling the caller would change.
	Would string `json:"would"`
}

// Service is a port of a Service, and who got its connections.
type Service struct {
	Service flow.Service `json:"service"`
	Address string       `json:"address"`
	// Class is what the port would be taken for, and Why what decides it. Bypass is why
	// it would be left to kube-proxy; empty if it would not.
	Class  string `json:"class"`
	Why    string `json:"why"`
	Bypass string `json:"bypass,omitempty"`
	// Callers counts the addresses that called it, and Connections what they made: those
	// open now, and those that the agent saw begin and that are in its log.
	Callers     int       `json:"callers"`
	Connections int       `json:"connections"`
	Backends    []Backend `json:"backends"`
}

// Backend is one of a Service's, and its share.
type Backend struct {
	flow.Peer
	// Open is how many connections of this node's pods it has, and Begun how many began.
	Open  int `json:"open"`
	Begun int `json:"begun"`
	// Share of the Service's connections, and Fair what each backend would have if all had
	// the same: between 0 and 1.
	Share float64 `json:"share"`
	Fair  float64 `json:"fair"`
}

// Namespace says which of the node's pods in a namespace a label on it would enroll.
type Namespace struct {
	Namespace string `json:"namespace"`
	// Enrolled are the pods that are enrolled now, Would those that the label would
	// enroll besides, and Others those that it wouldn't, with the reason.
	Enrolled []string `json:"enrolled"`
	Would    []string `json:"would"`
	Others   []Pod    `json:"others"`
}

// Pod is one that would not be enrolled.
type Pod struct {
	Pod string `json:"pod"`
	Why string `json:"why"`
}
