// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/server"
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

// prober connects to one of Envoy's listeners, through the loopback interface and
// Envoy's own workers: proof that a redirected connection would be served. The
// listener answers a connection that was not redirected by itself.
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

// askHost asks in the node's own network namespace, a listener that Envoy has not
// refused.
func askHost(cfg plan.Config, status func() server.Status) func(context.Context) error {
	return func(ctx context.Context) error {
		at, err := hostListener(cfg, status().Refused.Listeners)
		if err != nil {
			return err
		}
		return ask(ctx, (&net.Dialer{}).DialContext, at)
	}
}

// hostListener is where Envoy listens in host mode, of several listeners the first
// that is not refused.
func hostListener(cfg plan.Config, refused map[server.ListenerKey]string) (netip.AddrPort, error) {
	// A listener that detects the protocol waits for a client's first bytes.
	for _, class := range []model.Class{model.ClassHTTP, model.ClassTCP, model.ClassDetect} {
		for _, f := range cfg.Families {
			if _, is := refused[server.ListenerKey{Class: class, V6: f == family.V6}]; !is {
				return netip.AddrPortFrom(cfg.Address(f), cfg.Ports.Of(class)), nil
			}
		}
	}
	return netip.AddrPort{}, errors.New("all listeners are refused by Envoy")
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
	return ask(ctx, func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = namespace.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}, at)
}

// ask tries the listener at an address, connecting by dial, and says what is wrong
// with it, nil when nothing is; pods.ErrSilent when somebody listens there.
func ask(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), at netip.AddrPort) (err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := dial(ctx, "tcp", at.String())
	if err != nil {
		return fmt.Errorf("probe envoy: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })() // Ends the read.
	answer, err := io.ReadAll(io.LimitReader(conn, 1<<10))
	if err != nil {
		return fmt.Errorf("probe envoy: %s: %w: %w", at, pods.ErrSilent, err)
	}
	if string(answer) != xds.NotRedirected {
		return fmt.Errorf("probe envoy: %s: %w", at, pods.ErrSilent)
	}
	return nil
}
