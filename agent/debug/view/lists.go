// SPDX-License-Identifier: Apache-2.0

package view

import (
	"cmp"
	"strconv"
)

// List is a part of a list, in order.
type List[T any] struct {
	Items []T `json:"items"`
	// Continue is for the request of what follows; empty if nothing does.
	Continue string `json:"continue,omitempty"`
}

// Query says which part of a list somebody wants. Each filter that is set has to match.
type Query struct {
	// Limit is the most items, and After the Continue of the part before, decoded; empty
	// for the first.
	Limit int
	After string
	// Namespace is that of the objects. Service is a namespace/name, Class a capture class
	// or "bypass", and Kind a kind of Envoy's resources.
	Namespace, Service, Class, Kind string
	// InUse is for what Envoy has asked for, and Refused for what it has refused.
	InUse, Refused bool
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

// Why is the reason to show in one column: why an enrolled pod is not redirected, or else
// why it is, or is not, enrolled.
func (p *Pod) Why() string {
	switch {
	case p.NotRedirected == "":
		return p.Reason
	case p.Enrolled:
		return p.NotRedirected
	default: // Envoy still listens in it.
		return p.Reason + "; " + p.NotRedirected
	}
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

// Service is a Service that has frontends.
type Service struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// InUse says whether Envoy has asked for any frontend of it.
	InUse bool          `json:"inUse"`
	Ports []ServicePort `json:"ports"`
}

// ServicePort is a port of a Service.
type ServicePort struct {
	// Name is the port's name; empty if it has none.
	Name string `json:"name,omitempty"`
	Port uint16 `json:"port"`
	// Class is the capture class of its frontends, and Why what decided it.
	Class string `json:"class"`
	Why   string `json:"why"`
	// Addresses are its frontends, and Bypassed those of them that are left to kube-proxy.
	Addresses []string `json:"addresses"`
	Bypassed  int      `json:"bypassed"`
	InUse     bool     `json:"inUse"`
	// Backends is how many this node may use, of the frontend that has most.
	Backends int `json:"backends"`
}

// Label is the port's name if it has one, else its number.
func (p *ServicePort) Label() string { return cmp.Or(p.Name, strconv.Itoa(int(p.Port))) }

// ServiceDetail is one Service: /v1/services/{namespace}/{name}.
type ServiceDetail struct {
	Service
	// Frontends are the first of its frontends. Continue is for the request of more, to
	// /v1/frontends?service=namespace/name; empty if these are all.
	Frontends []Frontend `json:"frontends"`
	Continue  string     `json:"continue,omitempty"`
}
