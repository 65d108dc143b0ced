// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strconv"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/xds"
)

// limits are what this agent lets clients, servers and Services take of Envoy. Of the
// kernel's part it is told what was found on the node.
func limits(envoy xds.Config, redirect plan.Config) []view.Limit {
	var out []view.Limit
	for _, l := range xds.Limits(envoy) {
		out = append(out, view.Limit(l))
	}
	services := "none"
	if envoy.ClusterMemory > 0 {
		services = fmt.Sprintf("%d MiB by estimate; %d frontends of each Service", envoy.ClusterMemory>>20, xds.MaxFrontends)
	}
	most := func(limited bool, number uint32) string {
		if !limited {
			return "none"
		}
		return strconv.Itoa(int(number))
	}
	connections := most(redirect.Limited(), redirect.MaxConnections)
	rate := most(redirect.RateLimited(), redirect.MaxConnectionRate)
	requests := most(envoy.MaxRequestRate > 0, envoy.MaxRequestRate)
	return append(out,
		view.Limit{What: "Services in use", Most: services, Above: "further ones use kube-proxy"},
		view.Limit{What: "connections of one pod that are redirected, for each of its addresses", Most: connections, Above: "further ones are left to kube-proxy"},
		view.Limit{What: "connections of one pod that are redirected in a second, for each of its addresses", Most: rate, Above: "further ones are left to kube-proxy for a second"},
		view.Limit{What: "HTTP requests of one pod in a second, for each of its addresses", Most: requests, Above: "Envoy answers 429, or with the gRPC status RESOURCE_EXHAUSTED"},
	)
}
