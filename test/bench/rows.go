// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// row is one kind of load, measured on each path. Times are in microseconds.
type row struct {
	Name   string `json:"name"`
	Direct side   `json:"direct"`
	Host   side   `json:"host"`
	Pod    side   `json:"pod"`

	protocol string
	port     int
	// rate is requests per second; 0 for as many as there can be.
	rate float64
	// fresh makes a connection for each request.
	fresh bool
}

// side is what one path gave, as medians over all rounds.
type side struct {
	P50       float64 `json:"p50Microseconds"`
	P99       float64 `json:"p99Microseconds"`
	PerSecond float64 `json:"requestsPerSecond"`
	// CPU is the processor time of client, servers and Envoy for a request;
	// Envoy is Envoy's part of it, where it has one.
	CPU   float64 `json:"cpuMicroseconds"`
	Envoy float64 `json:"envoyMicroseconds,omitempty"`

	samples []sample
}

// The rates at which latency is compared, on kept connections and new ones.
const (
	steadyRate = 1000
	freshRate  = 200
)

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
		Duration: time.Duration(cfg.seconds * float64(time.Second)), Connections: cfg.conns, Size: answerSize, Fresh: r.fresh,
	}
}

// sum fills in every side from its samples.
func (r *row) sum() {
	for _, s := range []*side{&r.Direct, &r.Host, &r.Pod} {
		s.P50 = s.median(func(m sample) float64 { return micros(m.result.P50) })
		s.P99 = s.median(func(m sample) float64 { return micros(m.result.P99) })
		s.PerSecond = s.median(func(m sample) float64 { return m.result.PerSecond })
		s.CPU = s.median(func(m sample) float64 { return micros(m.client+m.servers+m.envoy) / float64(m.result.Requests) })
		s.Envoy = s.median(func(m sample) float64 { return micros(m.envoy) / float64(m.result.Requests) })
	}
}

// median is the middle of a value over the samples.
func (s *side) median(value func(sample) float64) float64 {
	var values []float64
	for _, m := range s.samples {
		values = append(values, value(m))
	}
	slices.Sort(values)
	mid := len(values) / 2
	if len(values)%2 == 1 {
		return values[mid]
	}
	return (values[mid-1] + values[mid]) / 2
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// printTable prints each figure of each row on every path, and the ratios to
// the direct one.
func printTable(rows []*row) {
	const line = "%-23s %-24s %8s %8s %8s %8s %8s\n"
	fmt.Printf(line, "", "", "direct", "host", "pod", "host", "pod")
	for _, r := range rows {
		name := r.Name
		show := func(what string, value func(side) float64) {
			direct, host, pod := value(r.Direct), value(r.Host), value(r.Pod)
			ratio := func(v float64) string {
				if direct == 0 {
					return "-"
				}
				return fmt.Sprintf("%.2f x", v/direct)
			}
			number := func(v float64) string { return fmt.Sprintf("%.0f", v) }
			fmt.Printf(line, name, what, number(direct), number(host), number(pod), ratio(host), ratio(pod))
			name = ""
		}
		if r.rate > 0 {
			show("p50, microseconds", func(s side) float64 { return s.P50 })
			show("p99, microseconds", func(s side) float64 { return s.P99 })
		} else {
			show("requests per second", func(s side) float64 { return s.PerSecond })
		}
		show("CPU per request, us", func(s side) float64 { return s.CPU })
		show("  Envoy's part of it", func(s side) float64 { return s.Envoy })
	}
}
