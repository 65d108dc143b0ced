// SPDX-License-Identifier: Apache-2.0

package xds

import "github.com/nodevoy/nodevoy/agent/model"

// What a cluster takes of Envoy's memory, in bytes, as measured on Envoy 1.40 with
// one or two workers: 79 to 85 kB with one endpoint, 109 kB with ten, 497 kB with a
// hundred.
const (
	clusterMemory  = 84 << 10
	endpointMemory = 5 << 10
)

// MaxFrontends is how many frontends of one Service come into use, as long as its
// clusters have a limit of memory: few Services have so many ports, and a pod that
// tries all ports of one is no reason to load them.
const MaxFrontends = 32

// ClusterMemory estimates how much of Envoy's memory each cluster of a frontend
// takes, in bytes.
func ClusterMemory(f *model.Frontend) int64 {
	return clusterMemory + int64(len(f.Backends))*endpointMemory
}
