// SPDX-License-Identifier: Apache-2.0

package envoyadmin

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Cluster is a cluster as Envoy has it.
type Cluster struct {
	Name  string
	Hosts []Host
}

// Host is a backend in a cluster.
type Host struct {
	Address netip.AddrPort
	// Healthy says that Envoy takes it for usable, Ejected that its outlier detection
	// has taken it out; Flags are Envoy's words for what is wrong.
	Healthy, Ejected bool
	Flags            []string
	Weight           uint32
	Zone             string
	// Stats are its counters and gauges.
	Stats map[string]uint64
}

// ejected is Envoy's word for a host that its outlier detection has taken out.
const ejected = "failed_outlier_check"

// Clusters asks for those clusters of these names that Envoy has.
func (e *Envoy) Clusters(ctx context.Context, names []string) ([]Cluster, error) {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = regexp.QuoteMeta(name)
	}
	filter := "^(" + strings.Join(quoted, "|") + ")$"
	// Envoy takes a plus sign for itself, not for a space.
	query := strings.ReplaceAll(url.QueryEscape(filter), "+", "%20")
	text, err := e.request(ctx, http.MethodGet, "/clusters?format=json&filter="+query)
	if err != nil {
		return nil, fmt.Errorf("ask envoy for clusters: %w", err)
	}
	clusters, err := parseClusters([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("ask envoy for clusters: %w", err)
	}
	return clusters, nil
}

// clustersAnswer is envoy.admin.v3.Clusters, as far as it is used.
type clustersAnswer struct {
	Clusters []struct {
		Name  string       `json:"name"`
		Hosts []hostAnswer `json:"host_statuses"`
	} `json:"cluster_statuses"`
}

type hostAnswer struct {
	Address socketAnswer `json:"address"`
	Stats   []struct {
		Name string `json:"name"`
		// A number of 64 bits is text in the JSON of protobuf.
		Value string `json:"value"`
	} `json:"stats"`
	Health   map[string]any `json:"health_status"`
	Weight   uint32         `json:"weight"`
	Locality struct {
		Zone string `json:"zone"`
	} `json:"locality"`
}

type socketAnswer struct {
	Socket struct {
		Address string `json:"address"`
		Port    uint16 `json:"port_value"`
	} `json:"socket_address"`
}

func parseClusters(text []byte) ([]Cluster, error) {
	var answer clustersAnswer
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, err
	}
	clusters := make([]Cluster, 0, len(answer.Clusters))
	for _, c := range answer.Clusters {
		cluster := Cluster{Name: c.Name}
		for i := range c.Hosts {
			host, err := c.Hosts[i].host()
			if err != nil {
				return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
			}
			cluster.Hosts = append(cluster.Hosts, host)
		}
		clusters = append(clusters, cluster)
	}
	return clusters, nil
}

func (a *hostAnswer) host() (Host, error) {
	ip, err := netip.ParseAddr(a.Address.Socket.Address)
	if err != nil {
		return Host{}, err
	}
	h := Host{
		Address: netip.AddrPortFrom(ip.Unmap(), a.Address.Socket.Port), Healthy: true, Weight: a.Weight, Zone: a.Locality.Zone, Stats: map[string]uint64{},
	}
	for _, word := range slices.Sorted(maps.Keys(a.Health)) {
		switch value := a.Health[word].(type) {
		case bool:
			if value {
				h.Healthy, h.Flags = false, append(h.Flags, word)
			}
		case string:
			if value != "HEALTHY" && value != "UNKNOWN" {
				h.Healthy, h.Flags = false, append(h.Flags, word+" "+value)
			}
		}
	}
	h.Ejected = slices.Contains(h.Flags, ejected)
	for _, s := range a.Stats {
		if s.Value == "" {
			continue // Zero is left out.
		}
		n, err := strconv.ParseUint(s.Value, 10, 64)
		if err != nil {
			return Host{}, fmt.Errorf("%s: %w", s.Name, err)
		}
		h.Stats[s.Name] = n
	}
	return h, nil
}

// Listeners names the listeners that Envoy has.
func (e *Envoy) Listeners(ctx context.Context) ([]string, error) {
	text, err := e.request(ctx, http.MethodGet, "/listeners?format=json")
	if err != nil {
		return nil, fmt.Errorf("ask envoy for listeners: %w", err)
	}
	var answer struct {
		Listeners []struct {
			Name string `json:"name"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return nil, fmt.Errorf("ask envoy for listeners: %w", err)
	}
	names := make([]string, 0, len(answer.Listeners))
	for _, l := range answer.Listeners {
		names = append(names, l.Name)
	}
	return names, nil
}
