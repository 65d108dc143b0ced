// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/xds"
)

// The prober's clocks. A healthy Envoy answers in under a millisecond; the
// timeout leaves room for a node whose cores are all busy.
const (
	probeInterval = time.Second
	probeTimeout  = time.Second
	// podProbeTimeout is for several pods, one after another.
	podProbeTimeout = 3 * probeTimeout
)

// probeResult is one try of Envoy's data path.
type probeResult struct {
	at  time.Time
	err error
}

// prober asks Envoy's HTTP listener for an answer, through the loopback
// interface and Envoy's own workers: proof that a redirected connection would
// be served. The listener answers such a request, which was not redirected, by
// itself, and it reaches no backend.
type prober struct {
	// try asks once; it is a field so that the loop can be tested in a time of
	// its own, where no socket works.
	try     func(ctx context.Context) error
	results chan probeResult
	kicked  chan struct{}
}

func newProber(try func(context.Context) error) *prober {
	return &prober{try: try, results: make(chan probeResult), kicked: make(chan struct{}, 1)}
}

// run tries once a second, and when kicked, until ctx ends.
func (p *prober) run(ctx context.Context) error {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-p.kicked:
		}
		err := p.try(ctx)
		select {
		case <-ctx.Done():
			return nil
		case p.results <- probeResult{at: time.Now(), err: err}:
		}
	}
}

// kick asks for a try now; it never blocks.
func (p *prober) kick() {
	select {
	case p.kicked <- struct{}{}:
	default:
	}
}

// askHost asks in the node's own network namespace.
func askHost(cfg plan.Config) func(context.Context) error {
	address := httpListener(cfg)
	client := askClient((&net.Dialer{Timeout: probeTimeout}).DialContext)
	return func(ctx context.Context) error { return ask(ctx, client, address) }
}

// httpListener is where Envoy listens for HTTP in host mode, by IPv6 only where there
// is no other family.
func httpListener(cfg plan.Config) netip.AddrPort {
	if !slices.Contains(cfg.Families, family.V4) {
		return netip.AddrPortFrom(cfg.Address6, cfg.Ports.HTTP)
	}
	return netip.AddrPortFrom(cfg.Address4, cfg.Ports.HTTP)
}

// askPods asks by ask, which is for one of the pods and says what is wrong with
// Envoy, and not with a single pod.
func askPods(ask func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, podProbeTimeout)
		defer cancel()
		return ask(ctx)
	}
}

// askInPod asks Envoy's listener at an address inside a pod.
func askInPod(ctx context.Context, namespace *netns.Namespace, at netip.AddrPort) error {
	dialer := &net.Dialer{Timeout: probeTimeout}
	client := askClient(func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = namespace.Do(func() error {
			conn, err = dialer.DialContext(ctx, network, address)
			return err
		})
		return conn, err
	})
	return ask(ctx, client, at)
}

// askClient is an HTTP client for ask that connects by dial. Each try is a new
// connection: the accepting side is what is tried.
func askClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Client {
	return &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
}

// ask tries the listener at an address and says what is wrong with it, nil when
// nothing is.
func ask(ctx context.Context, client *http.Client, address netip.AddrPort) (err error) {
	url := "http://" + address.String() + "/"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("probe envoy: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("probe envoy: %w", err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return fmt.Errorf("probe envoy: %w", err)
	}
	if resp.StatusCode != http.StatusNotFound || string(body) != xds.NotRedirectedBody {
		return fmt.Errorf("probe envoy: %s at %s is not nodevoy's listener", resp.Status, url)
	}
	return nil
}
