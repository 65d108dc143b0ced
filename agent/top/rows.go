// SPDX-License-Identifier: Apache-2.0

package top

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
)

// Row is what became of the calls of one port of a Service between two samples.
type Row struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Port      string `json:"port"`
	// Requests are those of HTTP in a second, Errors the share of them that had no
	// answer, or one of 5xx, from 0 to 1.
	Requests float64 `json:"requestsPerSecond"`
	Errors   float64 `json:"errorShare"`
	// P50 and P99 are latencies in seconds, left out if there were no requests. One
	// beyond the largest bucket is that bucket's bound.
	P50 *float64 `json:"p50Seconds,omitempty"`
	P99 *float64 `json:"p99Seconds,omitempty"`
	// Connections are those made to backends in a second, Open those open at the end.
	Connections float64 `json:"connectionsPerSecond"`
	Open        float64 `json:"connectionsOpen"`
	// Sources are the namespaces that called, most calls first.
	Sources []string `json:"sourceNamespaces"`
}

// Pair is two samples of one node.
type Pair struct{ Before, After Sample }

// Order is by what rows are sorted, the largest first.
type Order string

// The orders.
const (
	ByRate    Order = "rate"
	ByErrors  Order = "errors"
	ByLatency Order = "p99"
)

// Orders are all there are.
func Orders() []string { return []string{string(ByRate), string(ByErrors), string(ByLatency)} }

// Rows adds up what was counted on some nodes. Ports that nothing was counted of, and
// that have no open connection, have no row.
func Rows(pairs []Pair, by Order) []Row {
	sums := Sample{ports: map[Port]*counts{}}
	rates := map[Port]*Row{}
	for _, p := range pairs {
		seconds := p.After.At.Sub(p.Before.At).Seconds()
		if seconds <= 0 {
			continue
		}
		for port, after := range p.After.ports {
			row := rates[port]
			if row == nil {
				row = &Row{Namespace: port.Namespace, Service: port.Service, Port: port.Port}
				rates[port] = row
			}
			before := p.Before.ports[port]
			if before == nil {
				before = &counts{}
			}
			sum := sums.of(port)
			row.Requests += total(add(sum.codes, before.codes, after.codes)) / seconds
			add(sum.sources, before.sources, after.sources)
			add(sum.buckets, before.buckets, after.buckets)
			row.Connections += grown(before.connections, after.connections) / seconds
			row.Open += after.open
		}
	}
	rows := []Row{}
	for port, row := range rates {
		if row.Requests > 0 || row.Connections > 0 || row.Open > 0 {
			row.judge(sums.of(port))
			rows = append(rows, *row)
		}
	}
	slices.SortFunc(rows, by.compare)
	return rows
}

// add adds to sum what was counted between two samples, and returns that.
func add[K comparable](sum, before, after map[K]float64) map[K]float64 {
	all := map[K]float64{}
	for key, n := range after {
		all[key] = grown(before[key], n)
		sum[key] += all[key]
	}
	return all
}

// grown is by how much a counter grew; it begins anew where Envoy does.
func grown(before, after float64) float64 {
	if after < before {
		return after
	}
	return after - before
}

func total[K comparable](of map[K]float64) (sum float64) {
	for _, n := range of {
		sum += n
	}
	return sum
}

// judge fills in what is made of the sums of all nodes.
func (r *Row) judge(sum *counts) {
	failed := 0.0
	for code, n := range sum.codes {
		// 0 is for no answer.
		if strings.HasPrefix(code, "5") || code == "0" {
			failed += n
		}
	}
	if all := total(sum.codes); all > 0 {
		r.Errors = failed / all
	}
	r.P50, r.P99 = quantile(0.5, sum.buckets), quantile(0.99, sum.buckets)
	r.Sources = []string{}
	for source, n := range sum.sources {
		if n > 0 {
			r.Sources = append(r.Sources, source)
		}
	}
	slices.SortFunc(r.Sources, func(a, b string) int {
		return cmp.Or(cmp.Compare(sum.sources[b], sum.sources[a]), cmp.Compare(a, b))
	})
}

// quantile takes durations within a bucket for evenly spread, as Prometheus'
// histogram_quantile does.
func quantile(q float64, buckets map[float64]float64) *float64 {
	bounds := slices.Sorted(maps.Keys(buckets))
	if len(bounds) == 0 || buckets[bounds[len(bounds)-1]] == 0 {
		return nil
	}
	rank := q * buckets[bounds[len(bounds)-1]]
	lower, below := 0.0, 0.0
	for _, upper := range bounds {
		n := buckets[upper]
		if n >= rank {
			if !math.IsInf(upper, 1) && n > below {
				lower += (upper - lower) * (rank - below) / (n - below)
			}
			return &lower
		}
		lower, below = upper, n
	}
	return &lower
}

func (o Order) compare(a, b Row) int {
	value := func(r Row) float64 {
		switch o {
		case ByErrors:
			return r.Errors * r.Requests
		case ByLatency:
			if r.P99 != nil {
				return *r.P99
			}
			return 0
		}
		return r.Requests
	}
	return cmp.Or(cmp.Compare(value(b), value(a)), cmp.Compare(b.Connections, a.Connections),
		cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Port, b.Port))
}
