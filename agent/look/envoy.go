// SPDX-License-Identifier: Apache-2.0

package look

import (
	"context"
	"net/netip"
	"strings"

	"github.com/nodevoy/nodevoy/agent/envoyadmin"
	"github.com/nodevoy/nodevoy/agent/why"
)

// Envoy asks Envoy what it has of these clusters, and for its listeners.
func Envoy(ctx context.Context, envoy *envoyadmin.Envoy, clusters []string) (*why.Proxy, error) {
	listeners, err := envoy.Listeners(ctx)
	if err != nil {
		return nil, err
	}
	found, err := envoy.Clusters(ctx, clusters)
	if err != nil {
		return nil, err
	}
	p := &why.Proxy{Listeners: listeners, Hosts: map[netip.AddrPort][]why.Host{}}
	for _, c := range found {
		p.Clusters = append(p.Clusters, c.Name)
		for i := range c.Hosts {
			h := &c.Hosts[i]
			host := why.Host{
				Cluster: c.Name, Healthy: h.Healthy, Ejected: h.Ejected, Flags: h.Flags, Weight: h.Weight, Active: h.Stats["cx_active"],
				// A request for which no connection could be made is in none of Envoy's totals.
				Total: max(h.Stats["rq_total"], h.Stats["rq_success"]+h.Stats["rq_error"]), Failed: h.Stats["rq_error"],
			}
			if !strings.Contains(c.Name, "HTTP/") {
				host.Total, host.Failed = h.Stats["cx_total"], h.Stats["cx_connect_fail"]
			}
			p.Hosts[h.Address] = append(p.Hosts[h.Address], host)
		}
	}
	return p, nil
}
