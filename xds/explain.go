// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"github.com/nodevoy/nodevoy/agent/model"
)

// Path are the names of the resources by which Envoy serves a frontend to one client.
type Path struct {
	Listener string
	// Route is empty for class tcp.
	Route string
	// Clusters are those that Envoy asks for, each when it first needs it; their
	// assignments of endpoints have the same names.
	Clusters []string
}

// Explain names what serves the connections to a frontend. target is the client's pod,
// which only matters in pod mode.
func Explain(cfg Config, target model.PodTarget, f *model.Frontend) Path {
	spec := ListenerSpec{Class: f.Class, Target: target}
	if !cfg.PodMode {
		spec.Target = model.PodTarget{}
		for _, addr := range cfg.addresses() {
			if addr.Is4() == f.Address.Addr().Is4() {
				spec.Addr = addr
			}
		}
	}
	path := Path{Listener: spec.Name()}
	if f.Class != model.ClassTCP {
		path.Route = RouteName
	}
	for _, as := range forms() {
		if f.Class == model.ClassDetect || as.http() == (f.Class == model.ClassHTTP) && as != formTLS {
			path.Clusters = append(path.Clusters, clusterName{frontend: f.Address, form: as}.String())
		}
	}
	return path
}
