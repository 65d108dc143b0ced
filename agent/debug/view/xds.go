// SPDX-License-Identifier: Apache-2.0

package view

import "time"

// XDS is what Envoy has asked for and how it answered: /v1/xds.
type XDS struct {
	Envoy
	// Streams are the connected Envoys, the oldest first: two while one takes over.
	Streams []Stream `json:"streams"`
	// List is of the resources of all streams.
	List[Resource]
}

// Stream is what one Envoy has asked for.
type Stream struct {
	Since   time.Time `json:"since"`
	Version string    `json:"version,omitempty"`
	// Unanswered counts responses that it has neither accepted nor refused yet.
	Unanswered int `json:"unanswered"`
	// Kinds count its resources: cluster, endpoints, listener, route, runtime.
	Kinds map[string]ResourceCount `json:"kinds"`
}

// ResourceCount counts resources of one kind by what became of them.
type ResourceCount struct {
	// Subscribed are those that Envoy asked for, by name or as all there are.
	Subscribed int `json:"subscribed"`
	Accepted   int `json:"accepted"`
	Refused    int `json:"refused"`
}

// Resource is one of Envoy's resources.
type Resource struct {
	// Stream is the position of its stream in the list of streams.
	Stream int    `json:"stream"`
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	// State is requested, sent, accepted, refused, or absent for one that does not exist.
	State string `json:"state"`
	// Version is that which was sent last, and Accepted that which Envoy uses, if it is
	// another one.
	Version  string `json:"version,omitempty"`
	Accepted string `json:"accepted,omitempty"`
	// Why is Envoy's reason for refusing it, and RefusedAt when it did.
	Why       string     `json:"why,omitempty"`
	RefusedAt *time.Time `json:"refusedAt,omitempty"`
}
