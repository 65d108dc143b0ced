// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/nodevoy/nodevoy/agent/budget"
	"github.com/nodevoy/nodevoy/redirect/connections"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
)

const (
	// samplePause is the least time between two samples of the connections, and
	// sampleShare how many times longer the pause is than a sample takes.
	samplePause, sampleShare = time.Second, 5
)

// sampled is a sample of the connections, or why there is none.
type sampled struct {
	budget.Sample
	err error
}

// sampler lists the connections through Envoy when it is asked to: on a busy node
// that takes longer than the loop may stand still.
type sampler struct {
	// list calls its argument for each connection, maybe at once for several.
	list    func(found func(to netip.AddrPort, live bool)) error
	asked   chan struct{}
	results chan sampled
}

func newSampler(list func(func(netip.AddrPort, bool)) error) *sampler {
	return &sampler{list: list, asked: make(chan struct{}, 1), results: make(chan sampled)}
}

// ask asks for a sample; it never blocks.
func (s *sampler) ask() {
	select {
	case s.asked <- struct{}{}:
	default:
	}
}

// run takes samples until ctx ends.
func (s *sampler) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.asked:
		}
		began := time.Now()
		result := s.sample(began)
		select {
		case <-ctx.Done():
			return nil
		case s.results <- result:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(samplePause, sampleShare*time.Since(began))):
		}
	}
}

func (s *sampler) sample(began time.Time) sampled {
	var mu sync.Mutex
	result := sampled{Sample: budget.Sample{Began: began, Seen: map[netip.AddrPort]bool{}, Live: map[netip.AddrPort]bool{}}}
	err := s.list(func(to netip.AddrPort, live bool) {
		mu.Lock()
		defer mu.Unlock()
		result.Seen[to] = true
		if live {
			result.Live[to] = true
		}
	})
	if err != nil {
		return sampled{err: err}
	}
	return result
}

// listConnections lists those through Envoy: of the host's network namespace or, in pod
// mode, of the pods'.
func listConnections(cfg plan.Config, all *pods.Pods) func(func(netip.AddrPort, bool)) error {
	filter := connections.Filter{Transparent: cfg.Mode != plan.PodMode && cfg.Mechanism == plan.TPROXY}
	for _, f := range family.All() {
		filter.Listeners = append(filter.Listeners, cfg.Address(f))
	}
	if all != nil {
		return func(found func(netip.AddrPort, bool)) error { return all.Connections(filter, found) }
	}
	return func(found func(netip.AddrPort, bool)) error { return connections.List(filter, found) }
}
