// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// sides is the number of paths: direct, host, pod and sidecar, in this order.
const sides = 4

// row is one kind of load, measured on each path.
type row struct {
	Name    string `json:"name"`
	Direct  side   `json:"direct"`
	Host    side   `json:"host"`
	Pod     side   `json:"pod"`
	Sidecar side   `json:"sidecar"`
	// HostToDirect, PodToDirect and PodToSidecar are ratios: each the median of
	// the rounds' own, so that what disturbs one round counts once.
	HostToDirect side `json:"hostToDirect"`
	PodToDirect  side `json:"podToDirect"`
	PodToSidecar side `json:"podToSidecar"`

	protocol string
	port     int
	// rate is requests per second; 0 for as many as there can be.
	rate float64
	// fresh makes a connection for each request.
	fresh bool
	// samples are the rounds' of each path.
	samples [sides][]sample
}

// side is what one path gave, as medians over all rounds, or how two compare.
// Times are in microseconds.
type side struct {
	P50       float64 `json:"p50"`
	P99       float64 `json:"p99"`
	PerSecond float64 `json:"requestsPerSecond"`
	// CPU is the processor time of client, servers and Envoy for a request;
	// Envoy is Envoy's part of it, where it has one.
	CPU   float64 `json:"cpu"`
	Envoy float64 `json:"envoy,omitempty"`
	// Instructions are Envoy's in user space for a request, if they are counted.
	Instructions float64 `json:"instructions,omitempty"`
}

// The rates at which latency is compared, on kept connections and new ones.
const (
	steadyRate = 1000
	freshRate  = 200
)

// rows are those to measure.
func (c config) rows() []*row {
	return slices.DeleteFunc(allRows(), func(r *row) bool { return c.only != nil && !c.only.MatchString(r.Name) })
}

func allRows() []*row {
	return []*row{
		{Name: "HTTP/1.1 at 1,000 rps", protocol: echo.HTTP1, port: 80, rate: steadyRate},
		{Name: "HTTP/1.1 at most", protocol: echo.HTTP1, port: 80},
		{Name: "gRPC at 1,000 rps", protocol: echo.GRPC, port: echo.GRPCPort, rate: steadyRate},
		{Name: "gRPC at most", protocol: echo.GRPC, port: echo.GRPCPort},
		{Name: "TCP at 1,000 rps", protocol: echo.TCP, port: echo.TCPPort, rate: steadyRate},
		{Name: "TCP at most", protocol: echo.TCP, port: echo.TCPPort},
		{Name: "HTTP/1.1, new, 200 rps", protocol: echo.HTTP1, port: 80, rate: freshRate, fresh: true},
		{Name: "HTTP/1.1, new, at most", protocol: echo.HTTP1, port: 80, fresh: true},
		{Name: "gRPC, new, 200 rps", protocol: echo.GRPC, port: echo.GRPCPort, rate: freshRate, fresh: true},
		{Name: "gRPC, new, at most", protocol: echo.GRPC, port: echo.GRPCPort, fresh: true},
		{Name: "TCP, new, 200 rps", protocol: echo.TCP, port: echo.TCPPort, rate: freshRate, fresh: true},
		{Name: "TCP, new, at most", protocol: echo.TCP, port: echo.TCPPort, fresh: true},
	}
}

// spec is what a client does for the row.
func (r *row) spec(cfg config) echo.Spec {
	return echo.Spec{
		Protocol: r.protocol, Target: fmt.Sprintf("%s:%d", serviceIP, r.port), Rate: r.rate,
		Duration: time.Duration(cfg.seconds * float64(time.Second)), Connections: cfg.conns, Size: cfg.size, Fresh: r.fresh,
	}
}

// figures are what is measured of a sample.
func (m sample) figures() side {
	each := float64(m.result.Requests)
	return side{
		P50: micros(m.result.P50), P99: micros(m.result.P99), PerSecond: m.result.PerSecond,
		CPU: micros(m.client+m.servers+m.envoy) / each, Envoy: micros(m.envoy) / each,
		Instructions: float64(m.instructions) / each,
	}
}

// over is how a side compares to another; zero where that has nothing.
func (s side) over(o side) side {
	ratio := func(a, b float64) float64 {
		if b == 0 {
			return 0
		}
		return a / b
	}
	return side{
		P50: ratio(s.P50, o.P50), P99: ratio(s.P99, o.P99), PerSecond: ratio(s.PerSecond, o.PerSecond),
		CPU: ratio(s.CPU, o.CPU), Envoy: ratio(s.Envoy, o.Envoy), Instructions: ratio(s.Instructions, o.Instructions),
	}
}

// sum fills in every side and ratio from the samples.
func (r *row) sum() {
	var all [sides][]side
	for i, samples := range r.samples {
		for _, m := range samples {
			all[i] = append(all[i], m.figures())
		}
	}
	compare := func(some, others []side) side {
		var ratios []side
		for round := range some {
			ratios = append(ratios, some[round].over(others[round]))
		}
		return medians(ratios)
	}
	r.Direct, r.Host, r.Pod, r.Sidecar = medians(all[0]), medians(all[1]), medians(all[2]), medians(all[3])
	r.HostToDirect, r.PodToDirect, r.PodToSidecar = compare(all[1], all[0]), compare(all[2], all[0]), compare(all[2], all[3])
}

// medians are those of each figure.
func medians(all []side) side {
	return side{
		P50:       median(all, func(s side) float64 { return s.P50 }),
		P99:       median(all, func(s side) float64 { return s.P99 }),
		PerSecond: median(all, func(s side) float64 { return s.PerSecond }),
		CPU:       median(all, func(s side) float64 { return s.CPU }),
		Envoy:     median(all, func(s side) float64 { return s.Envoy }),

		Instructions: median(all, func(s side) float64 { return s.Instructions }),
	}
}

// median is the middle of a value over the rounds.
func median[T any](all []T, value func(T) float64) float64 {
	var values []float64
	for _, s := range all {
		values = append(values, value(s))
	}
	slices.Sort(values)
	mid := len(values) / 2
	if len(values)%2 == 1 {
		return values[mid]
	}
	return (values[mid-1] + values[mid]) / 2
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// printTable prints each figure of each row on every path, and the ratios. Where
// instructions are counted, Envoy is too slow for any other figure to mean anything.
func printTable(rows []*row, instructions bool) {
	const line = "%-23s %-22s %8s %8s %8s %8s  %11s %11s %11s\n"
	fmt.Printf(line, "", "", "direct", "host", "pod", "sidecar", "host/direct", "pod/direct", "pod/sidecar")
	for _, r := range rows {
		name := r.Name
		show := func(what string, value func(side) float64) {
			cells := []any{name, what}
			for _, s := range []side{r.Direct, r.Host, r.Pod, r.Sidecar} {
				cells = append(cells, fmt.Sprintf("%.1f", value(s)))
			}
			for _, s := range []side{r.HostToDirect, r.PodToDirect, r.PodToSidecar} {
				if value(s) == 0 {
					cells = append(cells, "-")
					continue
				}
				cells = append(cells, fmt.Sprintf("%.2f x", value(s)))
			}
			fmt.Printf(line, cells...)
			name = ""
		}
		if instructions {
			show("Envoy's instructions", func(s side) float64 { return s.Instructions })
			continue
		}
		show("p50, us", func(s side) float64 { return s.P50 })
		show("p99, us", func(s side) float64 { return s.P99 })
		if r.rate == 0 {
			show("requests per second", func(s side) float64 { return s.PerSecond })
		}
		show("CPU per request, us", func(s side) float64 { return s.CPU })
		show("  Envoy's part of it", func(s side) float64 { return s.Envoy })
	}
}
