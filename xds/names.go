// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/agent/model"
)

const (
	// RouteName is the name of the one HTTP route configuration.
	RouteName = "http"
	// metadataKey is the key under which endpoints and localities carry what
	// nodevoy knows of them. The others are fields of an endpoint there.
	metadataKey, podField, nodeField, workloadField = "nodevoy", "pod", "node", "workload"

	// privatePrefix starts every request header that is for this Envoy alone.
	// Such headers are removed from clients' requests before anything reads
	// them, and none is sent upstream.
	privatePrefix = "x-nodevoy-"
	// envoyPrefix replaces x-envoy in the names of headers that Envoy acts on or
	// adds. x-envoy- headers, which are between the client and the server, have
	// no effect here and are passed on unchanged.
	envoyPrefix = privatePrefix + "envoy"

	// The headers below have names for which Envoy has a slot in every request,
	// and which have no effect as it is configured here. To find, set or remove
	// a header of any other name, Envoy first builds a map of all headers of the
	// request, which costs more than all else that is done with these headers.

	// destinationHeader holds the version of HTTP, and the address that the client
	// connected to: the name of a cluster.
	destinationHeader = envoyPrefix + "-external-address"
	// protoHeader is present if the client itself sent x-forwarded-proto.
	protoHeader = envoyPrefix + "-downstream-service-cluster"
	// upgradeHeader is the client's upgrade header, if it sent one.
	upgradeHeader = envoyPrefix + "-original-path"
	// formHeader begins with absolutePrefix when the request line had an absolute URL, and
	// is then the name of its cluster.
	formHeader = envoyPrefix + "-downstream-service-node"
	// closeHeader is the Connection header of the client, if it sent one, and its
	// version of HTTP.
	closeHeader = envoyPrefix + "-decorator-operation"
	// sourceHeader holds the client's address, where its requests are limited.
	sourceHeader = envoyPrefix + "-attempt-count"

	// destination is the address a connection was made to, before it was
	// redirected: the name of its cluster ends with it.
	destination = "%DOWNSTREAM_LOCAL_ADDRESS%"
	// source is the address a connection was made from, whatever a client says in
	// x-forwarded-for.
	source = "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
	// noHost is the Host of an HTTP/1.0 request that came without one, until
	// the route replaces it.
	noHost = "host.nodevoy.invalid"
)

// form is what a cluster of a frontend is for. Its text precedes the frontend's address
// in the cluster's name.
type form string

const (
	// formHTTP1, formHTTP10 and formHTTP2 are for requests of each version of HTTP, as
	// Envoy names it.
	formHTTP1, formHTTP10, formHTTP2 form = "HTTP/1.1 ", "HTTP/1.0 ", "HTTP/2 "
	// absolutePrefix begins the forms for requests of HTTP/1 that have an absolute URL, as
	// an HTTP proxy gets them: the first letters of its scheme, http or https.
	absolutePrefix = "http "
	// formAbsolute and formAbsolute10 are these forms.
	formAbsolute, formAbsolute10 = absolutePrefix + formHTTP1, absolutePrefix + formHTTP10
	// formTCP is for connections of plain bytes, and formTLS for those of TLS to a
	// frontend whose protocol is detected.
	formTCP, formTLS form = "tcp ", "tls "
)

// forms are all of them.
func forms() []form {
	return []form{formHTTP1, formHTTP10, formHTTP2, formAbsolute, formAbsolute10, formTCP, formTLS}
}

// http says whether it is for requests of HTTP, and absolute whether they have an absolute
// URL.
func (f form) http() bool     { return f != formTCP && f != formTLS }
func (f form) absolute() bool { return strings.HasPrefix(string(f), absolutePrefix) }

// seen is what Envoy has seen on connections to the frontend, given that it asked for
// a cluster of this form.
func (f form) seen() model.Seen {
	return model.Seen{HTTP: f.http(), TLS: f == formTLS, Other: f == formTCP}
}

// FrontendOf is the address of the frontend that a cluster, or an assignment, of
// this name is for, and what Envoy has seen there if it asks for it; false for a name
// that no cluster can have.
func FrontendOf(name string) (netip.AddrPort, model.Seen, bool) {
	n, ok := parseClusterName(name)
	return n.frontend, n.form.seen(), ok
}

// clusterName names a cluster and its assignment: the frontend's address, which is what
// Envoy sees as a connection's destination, and what it is for. So the names that Envoy
// asks for say what clients send.
type clusterName struct {
	frontend netip.AddrPort
	form     form
}

func (n clusterName) String() string { return string(n.form) + n.frontend.String() }

// parseClusterName is the inverse of String; false for what String never returns.
func parseClusterName(name string) (clusterName, bool) {
	var n clusterName
	for _, f := range forms() {
		if text, is := strings.CutPrefix(name, string(f)); is {
			addr, err := netip.ParseAddrPort(text)
			n = clusterName{frontend: addr, form: f}
			return n, err == nil && n.String() == name
		}
	}
	return n, false
}

// ListenerSpec is what a listener is made of: its capture class and where it
// listens. In host mode that is one of the configured addresses, Addr; in pod mode
// it is all of them in the pod Target.
type ListenerSpec struct {
	Class  model.Class
	Addr   netip.Addr
	Target model.PodTarget
}

// Name is the listener's. A pod's contains its UID, so that no other pod's
// listener ever has the same.
func (s ListenerSpec) Name() string {
	switch {
	case s.Addr.Is4():
		return s.Class.String() + "-v4"
	case s.Addr.Is6():
		return s.Class.String() + "-v6"
	}
	return utf8(s.Class.String() + "/" + s.Target.Name() + "/" + s.Target.UID)
}

// addresses are those the listener listens on, v4 before v6; none if the pod has
// no address of a configured family.
func (s ListenerSpec) addresses(cfg Config) []netip.Addr {
	if s.Addr.IsValid() {
		return []netip.Addr{s.Addr}
	}
	return slices.DeleteFunc(cfg.addresses(), func(a netip.Addr) bool {
		return a.Is4() && !s.Target.V4 || a.Is6() && !s.Target.V6
	})
}
