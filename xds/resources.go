// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Kind is a type of resource, in the order in which changes are sent: a cluster
// before its endpoints, both before what may name them.
type Kind uint8

// The kinds that are served. KindCount is their number.
const (
	KindCluster Kind = iota
	KindEndpoints
	KindListener
	KindRoute
	// KindRuntime is not made of a node: the server is told what it has.
	KindRuntime
	KindCount
)

// String is the kind as logs, metrics and tables show it.
func (k Kind) String() string {
	return [KindCount]string{"cluster", "endpoints", "listener", "route", "runtime"}[k]
}

// TypeURL is the kind in the protocol.
func (k Kind) TypeURL() string {
	return [KindCount]string{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType, resourcev3.RuntimeType}[k]
}

// KindOf finds the kind of a type URL; false for one that is never served.
func KindOf(typeURL string) (Kind, bool) {
	for k := range KindCount {
		if k.TypeURL() == typeURL {
			return k, true
		}
	}
	return 0, false
}

// Inputs are everything that one resource is made of, besides the configuration.
// Equal inputs give the same resource, so that it need not be made again.
type Inputs interface {
	// Equal says whether other inputs give the same resource.
	Equal(other Inputs) bool
	// Message makes the resource.
	Message(cfg Config) proto.Message
}

// Resource is one Envoy resource, ready to be sent.
type Resource struct {
	Body *anypb.Any
	// Version is a hash of the body.
	Version string
}

// NewResource packs a message.
func NewResource(m proto.Message) Resource {
	body := pack(m)
	sum := sha256.Sum256(body.GetValue())
	return Resource{Body: body, Version: hex.EncodeToString(sum[:8])}
}

// pack encodes a message of this package, always to the same bytes.
func pack(m proto.Message) *anypb.Any {
	out := &anypb.Any{}
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		// The only cause is text that is not UTF-8. Settings are validated, and
		// text from Kubernetes passes through utf8.
		panic(fmt.Sprintf("pack %T: %v", m, err))
	}
	return out
}
