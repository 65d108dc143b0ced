// SPDX-License-Identifier: Apache-2.0

package why

import (
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// Input is what an answer is made of.
type Input struct {
	Now   time.Time
	Agent Agent
	// Model and Plan are nil until the agent has read all objects.
	Model *model.Node
	Plan  *plan.Plan
	Mode  plan.Mode
	// Pods is what became of each pod, by UID, in pod mode.
	Pods map[string]PodState
	// Short is why a frontend is left to kube-proxy for want of memory in Envoy, and
	// Refused why because Envoy refused it; empty if it is not.
	Short, Refused func(*model.Frontend) string
	XDS            XDS
	// Nacks are the last refusals of Envoy's, oldest first.
	Nacks []Nack
	// Flows are the last flows of the pair, newest first.
	Flows []flow.Flow
	// Live is what was seen on the node; nil if nobody looked.
	Live *Live
}

// Agent is what is known of the agent itself.
type Agent struct {
	Node string
	// At is when it published what is known.
	At time.Time
	// Redirecting says that enrolled pods' connections go to Envoy, Starting that the
	// objects are not read yet, Superseded that a newer agent does its work.
	Redirecting, Starting, Superseded bool
	// Reason says why it doesn't redirect, or what it waits for.
	Reason string
	// Stuck is what has not moved for too long.
	Stuck string
	// Mode is the mode of redirection in words.
	Mode string
	// Applied is when the kernel last held all that it is to hold.
	Applied time.Time
	// Errors are what fails: steps on the kernel, and kinds of objects that are not
	// followed.
	Errors []string
}

// PodState is what became of a pod in pod mode.
type PodState struct {
	Redirecting   bool
	Netns, Reason string
}

// XDS is how far Envoy is with what the pair needs.
type XDS struct {
	Connected bool
	Listener  Resource
	// Route is of class http and detect.
	Route *Resource
	// Clusters are those that Envoy has asked for; each has an assignment of endpoints
	// of the same name.
	Clusters []Resource
	// Endpoints are the assignments.
	Endpoints []Resource
}

// Resource is one of Envoy's resources.
type Resource struct {
	Name string
	// Asked, Sent and Acked say how far it is. Acked is of the present version.
	Asked, Sent, Acked bool
	// Refused is why Envoy refused the present version.
	Refused string
}

// Nack is one refusal of Envoy's.
type Nack struct {
	At           time.Time
	Type, Detail string
	Names        []string
}

// Live is what was seen on the node just now.
type Live struct {
	Kernel    *Kernel
	KernelErr string
	Proxy     *Proxy
	ProxyErr  string
}

// Kernel is what the kernel has for the pair.
type Kernel struct {
	// Source is the pod's address in the set of those that are redirected, Full in the
	// set of those with too many connections; Frontend is the destination in the set of
	// each class.
	Source   Entry
	Full     *Entry
	Frontend []Entry
	// Chains are those that the connection passes.
	Chains []Chain
}

// Chain is a chain of iptables.
type Chain struct {
	Table, Name string
	// Missing says that there is no such chain.
	Missing bool
	Rules   []CountedRule
}

// CountedRule is a rule as iptables-save writes it, and how many packets it matched.
type CountedRule struct {
	Line    string
	Packets uint64
}

// Proxy is what Envoy has for the pair.
type Proxy struct {
	// Listeners are the names of all listeners that Envoy has.
	Listeners []string
	// Hosts are the backends in the pair's clusters.
	Hosts map[netip.AddrPort][]Host
	// Clusters are those of the pair that Envoy has.
	Clusters []string
}
