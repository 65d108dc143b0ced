// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Inputs are everything one resource is made of, besides the configuration.
// Message sees nothing else, so equal inputs give the same resource: whoever
// has the resource of equal inputs need not make it again.
type Inputs interface {
	// Equal says whether other inputs give the same resource.
	Equal(other Inputs) bool
	// Message makes the resource.
	Message(cfg Config) proto.Message
}

// Translation is one node, and in pod mode the pods in which Envoy listens, as
// the inputs of every resource Envoy may ask for.
type Translation struct {
	node      *model.Node
	listeners *ListenerSpecs
}

// NewTranslation prepares a node. The targets are not used in host mode. before
// are the listeners of an earlier translation, to be shared if they would be the
// same; may be nil.
func NewTranslation(cfg Config, node *model.Node, targets []model.PodTarget, before *ListenerSpecs) *Translation {
	if before != nil && slices.Equal(targets, before.targets) {
		return &Translation{node: node, listeners: before}
	}
	return &Translation{node: node, listeners: newListenerSpecs(cfg, targets)}
}

// Listeners are the specs of all listeners.
func (t *Translation) Listeners() *ListenerSpecs { return t.listeners }

// Inputs are those of a resource; nil if there is none of this name. version
// gives the version of another resource: an assignment holds its cluster's.
func (t *Translation) Inputs(k Kind, name string, version func(Kind, string) string) Inputs {
	switch k {
	case KindListener:
		if spec, ok := t.listeners.ByName[name]; ok {
			return listenerInputs{name: name, spec: spec}
		}
	case KindRoute:
		if name == RouteName {
			return routeInputs{}
		}
	case KindCluster:
		if f, n := t.frontend(name); f != nil {
			return clusterInputs{name: n, port: f.Port}
		}
	case KindEndpoints:
		if f, n := t.frontend(name); f != nil {
			return endpointsInputs{name: n, backends: f.Backends, clusterVersion: version(KindCluster, name)}
		}
	}
	return nil
}

// frontend finds the one that the cluster of this name is for; nil if there is
// none, or it is not for Envoy.
func (t *Translation) frontend(name string) (*model.Frontend, clusterName) {
	n, ok := parseClusterName(name)
	if !ok {
		return nil, n
	}
	f, ok := t.node.Frontend(n.frontend)
	if !ok || f.Bypass != "" {
		return nil, n
	}
	return f, n
}

// clusterInputs are what a cluster is made of.
type clusterInputs struct {
	name clusterName
	port model.ServicePort
}

// Equal compares all of the inputs.
func (in clusterInputs) Equal(other Inputs) bool { return in == other }

// Message makes the cluster.
func (in clusterInputs) Message(cfg Config) proto.Message { return cluster(cfg, in) }

// endpointsInputs are what a cluster's assignment is made of.
type endpointsInputs struct {
	name     clusterName
	backends []model.Backend
	// clusterVersion is the version of the cluster it belongs to: Envoy keeps a
	// changed cluster back until an assignment comes, and one that had not
	// changed would not be sent.
	clusterVersion string
}

// Equal compares all of the inputs.
func (in endpointsInputs) Equal(other Inputs) bool {
	o, ok := other.(endpointsInputs)
	return ok && in.name == o.name && in.clusterVersion == o.clusterVersion && slices.Equal(in.backends, o.backends)
}

// Message makes the assignment.
func (in endpointsInputs) Message(Config) proto.Message { return assignment(in) }

// listenerInputs are what a listener is made of.
type listenerInputs struct {
	name string
	spec ListenerSpec
}

// Equal compares all of the inputs.
func (in listenerInputs) Equal(other Inputs) bool { return in == other }

// Message makes the listener.
func (in listenerInputs) Message(cfg Config) proto.Message { return listener(cfg, in.name, in.spec) }

// routeInputs are what the routes are made of: without policies, nothing.
type routeInputs struct{}

// Equal compares all of the inputs.
func (in routeInputs) Equal(other Inputs) bool { return in == other }

// Message makes the route configuration.
func (in routeInputs) Message(cfg Config) proto.Message { return routeConfiguration(cfg) }

// Resource is one Envoy resource, ready to be sent.
type Resource struct {
	Body *anypb.Any
	// Version is the fingerprint of the body.
	Version string
}

// NewResource packs a message.
func NewResource(m proto.Message) Resource {
	body := pack(m)
	sum := sha256.Sum256(body.GetValue())
	return Resource{Body: body, Version: hex.EncodeToString(sum[:8])}
}
