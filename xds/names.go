// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/netip"
	"strings"

	"github.com/nodevoy/nodevoy/agent/model"
)

const (
	// RouteName is the name of the one HTTP route configuration.
	RouteName = "http"
	// bootstrapCluster is the only static cluster: the agent's ADS server.
	bootstrapCluster = "xds"
	// nodeCluster is the service cluster of Envoy's own node.
	nodeCluster = "nodevoy"
	// metadataKey is the key under which endpoints and localities carry what
	// nodevoy knows of them.
	metadataKey = "nodevoy"
	// podField, nodeField, zoneField are an endpoint's fields under metadataKey.
	podField, nodeField, zoneField = "pod", "node", "zone"
	// versionField is the field under metadataKey, of a locality, that holds
	// the version of the cluster the assignment belongs to.
	versionField = "cluster"

	// privatePrefix starts every request header that is for this Envoy alone.
	// Whatever a client sends under it is dropped before anything reads it,
	// and none of it is sent upstream.
	privatePrefix = "x-nodevoy-"
	// envoyPrefix replaces x-envoy in the names of headers Envoy acts on or
	// adds, so that x-envoy- headers, which are between the client and the
	// server, mean nothing here and pass untouched.
	envoyPrefix = privatePrefix + "envoy"

	// The headers below have names for which Envoy has a slot in every request,
	// and which mean nothing to it as it is configured here. Before it finds,
	// sets or removes a header of any other name, it builds a map of all of the
	// request's headers, which costs more than all the rest done with ours.

	// destinationHeader holds the address the client connected to.
	destinationHeader = envoyPrefix + "-external-address"
	// protoHeader is there when the client itself sent x-forwarded-proto.
	protoHeader = envoyPrefix + "-downstream-service-cluster"
	// upgradeHeader is what the client sent as upgrade, if it did.
	upgradeHeader = envoyPrefix + "-original-path"
	// formHeader begins with absolutePrefix when the request line had an
	// absolute URL, and ends with the address the client connected to.
	formHeader = envoyPrefix + "-downstream-service-node"

	// absolutePrefix precedes the frontend's address in the name of the
	// cluster for requests that have an absolute URL.
	absolutePrefix = "HTTP/1.1 http "
)

// listenerName names the listener of one class on one address.
func listenerName(class model.Class, addr netip.Addr) string {
	if addr.Is4() {
		return class.String() + "-v4"
	}
	return class.String() + "-v6"
}

// FrontendOf is the address of the frontend that a cluster, or an assignment, of
// this name is for; false for a name that no cluster ever has.
func FrontendOf(name string) (netip.AddrPort, bool) {
	n, ok := parseClusterName(name)
	return n.frontend, ok
}

// clusterName names a cluster and its assignment. It is the frontend's address,
// which is what Envoy sees as a connection's destination. A frontend has a
// second cluster for requests with an absolute URL, as an HTTP proxy gets them.
type clusterName struct {
	frontend netip.AddrPort
	absolute bool
}

func (n clusterName) String() string {
	if n.absolute {
		return absolutePrefix + n.frontend.String()
	}
	return n.frontend.String()
}

// parseClusterName is the inverse of String; false for what that never gives.
func parseClusterName(name string) (clusterName, bool) {
	text, absolute := strings.CutPrefix(name, absolutePrefix)
	addr, err := netip.ParseAddrPort(text)
	n := clusterName{frontend: addr, absolute: absolute}
	return n, err == nil && n.String() == name
}
