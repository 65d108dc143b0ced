// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/debug/page"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/loglevel"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/server"
)

const (
	// bindInterval is the pause between two tries to open an address.
	bindInterval = time.Second
	// bindPatience is how long an address may be taken before that is worth a
	// word, and then another: longer than an older agent should take to drain.
	bindPatience = 2 * time.Minute
)

// endpoint is what the debug endpoint shows, besides the published state.
type endpoint struct {
	*Agent
	health  debug.Health
	watches func() []kinds.Health
	streams func() []server.Stream
	flows   *flow.Log
	kernel  *kernelFlows
	metrics http.Handler
	// standing is how far Envoy is with a resource.
	standing func(xds.Kind, string) server.Standing
}

// runners are the parts that serve it, and the one that changes log levels back.
func (e endpoint) runners() []runner {
	log := e.log.Named("debug")
	level := zap.NewAtomicLevel()
	if e.cfg.LogLevel != nil {
		level = *e.cfg.LogLevel
	}
	levels := loglevel.New(level, e.envoy, time.Now, log)
	srv := debug.NewServer(e.source(levels), e.cfg.DebugPprof, time.Now, log)
	all := []runner{
		levels.Run,
		func(ctx context.Context) error { return srv.RunUnix(ctx, DebugSocket(e.cfg.RunDir)) },
	}
	if e.cfg.DebugAddress != "" {
		b := binder{address: e.cfg.DebugAddress, what: "the debug endpoint", log: log}
		all = append(all, func(ctx context.Context) error { return b.serve(ctx, srv.RunLoopback) })
	}
	return all
}

// source answers from the last state.
func (e endpoint) source(levels *loglevel.Levels) debug.Source {
	last := e.state.Load
	return debug.Source{
		Summary:  e.summary,
		Pods:     func(q view.Query) view.List[view.Pod] { return last().viewPods(q) },
		Services: func(q view.Query) view.List[view.Service] { return last().viewServices(q) },
		Service: func(namespace, name string) (view.ServiceDetail, bool) {
			return last().viewServiceDetail(namespace, name)
		},
		Frontends: func(q view.Query) (view.List[view.Frontend], error) { return last().viewFrontends(q) },
		Redirect:  func() view.RedirectPlan { return last().viewPlan() },
		XDS:       func(q view.Query) view.XDS { return last().viewXDS(e.streams(), q) },
		Config:    e.config,
		Flows:     e.flows,
		Advise:    e.kernel.advise,
		Levels:    levels,
		Envoy:     e.envoyPage,
		Why:       e.explainer().answer,
		Metrics:   e.metrics,
		Health:    e.health,
		Page:      page.Files(),
	}
}

// explainer says where calls go.
func (e endpoint) explainer() *explainer {
	x := &explainer{cfg: e.cfg, state: e.state, stuck: e.health.Live, health: e.watches, standing: e.standing, envoy: e.envoy, flows: e.flows}
	if e.pods != nil {
		x.enter = e.pods.Enter
	}
	return x
}

func (e endpoint) summary() view.Summary {
	v := e.state.Load().summary()
	v.Node, v.NotReady, v.Stuck, v.Watches = e.cfg.NodeName, e.health.Ready(), e.health.Live(), viewWatches(e.watches())
	v.Limits, v.KernelFlows = e.limits(), e.kernel.status()
	return v
}

func (e endpoint) limits() []view.Limit {
	return limits(e.cfg.XDS, e.state.Load().resolved(e.cfg.Redirect))
}

// config is what the agent was told, and what came of it.
func (e endpoint) config() view.Config {
	r := e.state.Load().resolved(e.cfg.Redirect)
	v := view.Config{
		Version: e.cfg.Version, Node: e.cfg.NodeName, Flags: append([]view.Flag{}, e.cfg.Flags...),
		Mode: r.Mode.String(), Backend: r.Backend.String(), Listeners: []view.Listener{}, Limits: e.limits(),
	}
	if !e.cfg.XDS.PodMode {
		v.Mechanism = r.Mechanism.String()
	}
	for _, f := range family.All() {
		if !slices.Contains(r.Families, f) {
			continue
		}
		for _, c := range model.Classes() {
			at := netip.AddrPortFrom(r.Address(f), r.Ports.Of(c))
			v.Listeners = append(v.Listeners, view.Listener{Class: c.String(), Address: at.String()})
		}
	}
	return v
}

func (e endpoint) envoyPage(ctx context.Context, page string, query url.Values) (debug.EnvoyPage, error) {
	contentType, text, err := e.envoy.Page(ctx, page, query)
	if err != nil {
		return debug.EnvoyPage{}, fmt.Errorf("%w: %w", debug.ErrUnavailable, err)
	}
	return debug.EnvoyPage{ContentType: contentType, ReadCloser: text}, nil
}

// checkLoopback says what is wrong with an address of the debug endpoint.
func checkLoopback(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("--debug-address %q: want an IP address and a port, such as 127.0.0.1:23719", address)
	}
	if !at.Addr().IsLoopback() || at.Port() == 0 {
		return fmt.Errorf("--debug-address %q is not a port of a loopback address", address)
	}
	return nil
}

// binder opens an address, and waits for it while somebody else has it: usually an older
// agent on this node, which may stand by for as long as a rollout takes.
type binder struct {
	address, what string
	log           *zap.Logger
}

// serve serves on the address until ctx ends.
func (b binder) serve(ctx context.Context, serve func(context.Context, net.Listener) error) error {
	ln, err := b.listen(ctx)
	if err != nil || ln == nil {
		return err
	}
	return serve(ctx, ln)
}

// listen returns nil without an error when ctx ended before the address was free.
func (b binder) listen(ctx context.Context) (net.Listener, error) {
	retry := time.NewTicker(bindInterval)
	defer retry.Stop()
	patience := time.NewTicker(bindPatience)
	defer patience.Stop()
	for {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", b.address)
		if err == nil {
			return ln, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("listen for %s: %w", b.what, err)
		}
		select {
		case <-ctx.Done():
			return nil, nil
		case <-patience.C:
			b.log.Warn("not served: another process has the address", zap.String("what", b.what), zap.Error(err))
		case <-retry.C:
		}
	}
}
