// SPDX-License-Identifier: Apache-2.0

package xds

import resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

// Kind is a type of resource, in the order in which Envoy must be told of
// changes: a cluster before its endpoints, both before what may name them.
type Kind uint8

// The kinds that are served. KindCount is their number.
const (
	KindCluster Kind = iota
	KindEndpoints
	KindListener
	KindRoute
	KindCount
)

// String is the kind as logs, metrics and tables write it.
func (k Kind) String() string {
	return [KindCount]string{"cluster", "endpoints", "listener", "route"}[k]
}

// TypeURL is the kind as the protocol writes it.
func (k Kind) TypeURL() string {
	return [KindCount]string{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType}[k]
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
