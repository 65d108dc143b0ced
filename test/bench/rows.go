// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// row is one kind of load, measured on both paths. Times are in microseconds.
type row struct {
	Name    string `json:"name"`
	Direct  side   `json:"direct"`
	Nodevoy side   `json:"nodevoy"`

	protocol string
	port     int
	// rate is requests per second; 0 for as many as there can be.
	rate float64
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

// steadyRate is the rate at which latency is compared.
const steadyRate = 1000

func allRows() []*row {
	return []*row{
		{Name: "HTTP/1.1 at 1,000 rps", protocol: echo.HTTP1, port: 80, rate: steadyRate},
		{Name: "HTTP/1.1 at most", protocol: echo.HTTP1, port: 80},
		{Name: "gRPC at 1,000 rps", protocol: echo.GRPC, port: echo.GRPCPort, rate: steadyRate},
		{Name: "gRPC at most", protocol: echo.GRPC, port: echo.GRPCPort},
		{Name: "TCP at 1,000 rps", protocol: echo.TCP, port: echo.TCPPort, rate: steadyRate},
		{Name: "TCP at most", protocol: echo.TCP, port: echo.TCPPort},
	}
}

// spec is what a client does for the row.
func (r *row) spec(cfg config) echo.Spec {
	return echo.Spec{
		Protocol: r.protocol, Target: fmt.Sprintf("%s:%d", serviceIP, r.port), Rate: r.rate,
		Duration: time.Duration(cfg.seconds * float64(time.Second)), Connections: cfg.conns, Size: answerSize,
	}
}

// sum fills in both sides from their samples.
func (r *row) sum() {
	r.Nodevoy.Envoy = r.Nodevoy.median(func(m sample) float64 { return micros(m.envoy) / float64(m.result.Requests) })
	for _, s := range []*side{&r.Direct, &r.Nodevoy} {
		s.P50 = s.median(func(m sample) float64 { return micros(m.result.P50) })
		s.P99 = s.median(func(m sample) float64 { return micros(m.result.P99) })
		s.PerSecond = s.median(func(m sample) float64 { return m.result.PerSecond })
		s.CPU = s.median(func(m sample) float64 { return micros(m.client+m.servers+m.envoy) / float64(m.result.Requests) })
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

// printTable prints each figure of each row on both paths, and their ratio.
func printTable(rows []*row) {
	const line = "%-22s %-26s %10s %10s %8s\n"
	fmt.Printf(line, "", "", "direct", "nodevoy", "ratio")
	for _, r := range rows {
		name := r.Name
		show := func(what string, direct, nodevoy float64) {
			ratio := "-"
			if direct > 0 {
				ratio = fmt.Sprintf("%.2f x", nodevoy/direct)
			}
			fmt.Printf(line, name, what, fmt.Sprintf("%.0f", direct), fmt.Sprintf("%.0f", nodevoy), ratio)
			name = ""
		}
		if r.rate > 0 {
			show("p50, microseconds", r.Direct.P50, r.Nodevoy.P50)
			show("p99, microseconds", r.Direct.P99, r.Nodevoy.P99)
		} else {
			show("requests per second", r.Direct.PerSecond, r.Nodevoy.PerSecond)
		}
		show("CPU per request, us", r.Direct.CPU, r.Nodevoy.CPU)
		fmt.Printf(line, "", "  Envoy's part of it", "-", fmt.Sprintf("%.0f", r.Nodevoy.Envoy), "-")
	}
}
