// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// requests is the number of requests of every call.
const requests = 60

// call is one row of the table.
type call struct {
	name     string
	protocol string
	port     int
	// fresh makes a connection for each request; else all use one.
	fresh bool
	// outsider calls from the pod that isn't enrolled.
	outsider bool
}

func calls() []call {
	return []call{
		{name: "HTTP/1.0, a connection each", protocol: echo.HTTP10, port: 80, fresh: true},
		{name: "HTTP/1.1, one kept alive", protocol: echo.HTTP1, port: 80},
		{name: "h2c, one connection", protocol: echo.H2C, port: 80},
		{name: "gRPC, one channel", protocol: echo.GRPC, port: echo.GRPCPort},
		{name: "TCP, a connection each", protocol: echo.TCP, port: echo.TCPPort, fresh: true},
		{name: "HTTP/1.1, from outsider", protocol: echo.HTTP1, port: 80, outsider: true},
	}
}

// spread says whether the requests of a call, once redirected, go to all
// backends although they share a connection.
func (c call) spread() bool { return !c.fresh && !c.outsider }

// callAll makes every call once.
func (s *fixture) callAll(ctx context.Context) ([]echo.Result, error) {
	var results []echo.Result
	for _, c := range calls() {
		from := s.client
		if c.outsider {
			from = s.outsider
		}
		result, err := from.Call(ctx, echo.Spec{
			Protocol: c.protocol, Target: fmt.Sprintf("%s:%d", serviceIP, c.port), Requests: requests, Fresh: c.fresh,
		})
		if err != nil {
			return nil, fmt.Errorf("call %s: %w", c.name, err)
		}
		results = append(results, result)
	}
	return results, nil
}

// printTable prints how many of a call's requests each pod answered.
func printTable(before, after []echo.Result) {
	const row = "%-29s  %-31s %s\n"
	fmt.Printf(row, fmt.Sprintf("%d requests each, by pod", requests), "kube-proxy alone", "with nodevoy")
	head := fmt.Sprintf("%5s %5s %5s %6s", "web-1", "web-2", "web-3", "failed")
	fmt.Printf(row, "", head, head)
	for i, c := range calls() {
		fmt.Printf(row, c.name, cells(before[i]), cells(after[i]))
	}
}

func cells(r echo.Result) string {
	return fmt.Sprintf("%5d %5d %5d %6d", r.Pods["shop/web-1"], r.Pods["shop/web-2"], r.Pods["shop/web-3"], r.Failed)
}

// check returns an error when the results are not what the demo is to show.
func (s *fixture) check(mode lab.Mode, before, after []echo.Result) error {
	var errs []error
	for i, c := range calls() {
		bad := func(format string, args ...any) {
			errs = append(errs, fmt.Errorf("%s: "+format, append([]any{c.name}, args...)...))
		}
		for phase, r := range map[string]echo.Result{"with kube-proxy alone": before[i], "with nodevoy": after[i]} {
			if r.Failed > 0 {
				bad("%d requests failed %s: %v", r.Failed, phase, slices.Sorted(maps.Keys(r.Errors)))
			}
		}
		if !c.fresh && len(before[i].Pods) != 1 {
			bad("kube-proxy spread one connection over %d pods", len(before[i].Pods))
		}
		if c.outsider && !maps.Equal(before[i].Peers, after[i].Peers) {
			bad("the pod is not enrolled, but its calls come from %s", strings.Join(slices.Sorted(maps.Keys(after[i].Peers)), ", "))
		}
		if c.outsider && after[i].Relayed > 0 {
			bad("the pod is not enrolled, but %d of its calls went through Envoy", after[i].Relayed)
		}
		if c.outsider && len(after[i].Pods) != 1 {
			bad("the pod is not enrolled, but one connection reached %d pods", len(after[i].Pods))
		}
		if !c.outsider && after[i].Relayed != requests {
			bad("%d of %d calls did not go through Envoy", requests-after[i].Relayed, requests)
		}
		if own := after[i].Peers[s.client.IPs[0].String()]; !c.outsider && own != map[bool]int{true: requests}[mode == lab.Pods] {
			bad("in %s mode %d of %d calls came from the client's own address", mode, own, requests)
		}
		if c.spread() {
			for pod, n := range after[i].Pods {
				if n < requests/backends*4/5 || n > requests/backends*6/5 {
					bad("%s got %d of %d requests", pod, n, requests)
				}
			}
			if len(after[i].Pods) != backends {
				bad("%d of %d pods were reached", len(after[i].Pods), backends)
			}
		}
	}
	return errors.Join(errs...)
}
