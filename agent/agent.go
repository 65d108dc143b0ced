// SPDX-License-Identifier: Apache-2.0

// Package agent is the whole agent of one node: it reads Kubernetes objects,
// keeps the node's Envoy configured over xDS, and redirects enrolled pods'
// connections to it. It computes nothing itself: agent/model, xds and redirect
// do, and this package decides when.
package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/agent/kube"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/objects"
	"github.com/nodevoy/nodevoy/redirect"
	"github.com/nodevoy/nodevoy/xds"
)

// cleanupTimeout bounds the removal of rules when the agent ends: kubelet's
// default grace is 30 s.
const cleanupTimeout = 15 * time.Second

// runner is a part of the agent that works until its context ends.
type runner func(ctx context.Context) error

// Agent is one node's agent, ready to run.
type Agent struct {
	cfg    Config
	log    *zap.Logger
	kernel guarded
	drain  *drainer
	state  *atomic.Pointer[State]
	parts  []runner
	// stopping is set once the agent itself is ending.
	stopping atomic.Bool
}

// New probes the node, takes a place on it and wires the agent's parts. It
// starts none of them. An error names what the node lacks, or the setting that
// can't be used.
func New(ctx context.Context, cfg Config, log *zap.Logger) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	findings, err := redirect.Probe(ctx, cfg.Redirect)
	if err != nil {
		return nil, fmt.Errorf("this node can't redirect: %w", err)
	}
	for _, why := range findings.Reasons {
		log.Info("node probed", zap.String("finding", why))
	}
	cfg.Redirect = findings.Resolve(cfg.Redirect)
	cfg = cfg.Resolved()
	place, err := handover.Join(cfg.HostDir, cfg.RunDir, func(slot int) bool {
		return portsFree(ctx, cfg.inSlot(slot).Redirect)
	})
	if err != nil {
		return nil, err
	}
	cfg = cfg.inSlot(place.Slot())
	applier, err := redirect.New(cfg.Redirect, log.Named("redirect"))
	if err != nil {
		return nil, fmt.Errorf("open the kernel's tables: %w", err)
	}
	a := &Agent{
		cfg: cfg, log: log, state: &atomic.Pointer[State]{},
		kernel: guarded{Applier: applier, place: place}, drain: newDrainer(cfg.XDS.AdminSocket),
	}
	return a, a.wire(findings)
}

// wire makes the parts that run.
func (a *Agent) wire(findings redirect.Findings) error {
	server, err := xds.NewServer(a.cfg.XDS, a.log.Named("xds"), xds.OnDisconnect(a.envoyGone))
	if err != nil {
		return err
	}
	src, tell, err := a.newSource()
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	prober := newProber(proberAddress(a.cfg.Redirect))
	l := &loop{
		cfg: a.cfg, findings: findings, source: src, envoy: server, kernel: a.kernel,
		prober: prober, metrics: newMetrics(registry), log: a.log.Named("loop"), state: a.state, tell: tell,
	}
	health := &healthServer{address: a.cfg.MetricsAddress, state: a.state, stuckAfter: a.cfg.StuckAfter, registry: registry}
	view := func(all bool) debug.View {
		s := a.state.Load()
		return s.view(all, s.stuck(time.Now(), a.cfg.StuckAfter))
	}
	a.parts = []runner{
		src.Run, server.Run, prober.run, l.run, health.run,
		debug.NewServer(DebugSocket(a.cfg.RunDir), view, a.log.Named("debug")).Run,
	}
	return nil
}

// runnableSource is a source with its own goroutine.
type runnableSource interface {
	source
	Run(ctx context.Context) error
}

// newSource opens the configured source of objects; the function returned with
// it tells the owner of an object what is wrong with it, and is nil where there
// is no way to.
func (a *Agent) newSource() (runnableSource, func(model.Problem), error) {
	if a.cfg.Objects != "" {
		src, err := objects.New(a.cfg.Objects, a.cfg.NodeName, a.log.Named("objects"))
		return src, nil, err
	}
	src, err := kube.New(kube.Config{Kubeconfig: a.cfg.Kubeconfig, NodeName: a.cfg.NodeName, Now: time.Now}, a.log.Named("kube"))
	if err != nil {
		return nil, nil, err
	}
	tell := func(p model.Problem) {
		about := kube.Object{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}
		src.Event(about, "NotUsedAsWritten", fmt.Sprintf("%s: %s", p.Field, p.Detail))
	}
	return src, tell, nil
}

// Run works until ctx ends or a part fails. Rules stay in the kernel, to expire
// unless the next agent takes them over, except when removal was asked for.
func (a *Agent) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	// Before any part can see that the end has come, so that the end of
	// Envoy's stream, which follows, is not taken for the end of Envoy.
	run, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g.Go(func() error {
		<-gctx.Done()
		a.stopping.Store(true)
		end()
		return nil
	})
	for _, part := range a.parts {
		g.Go(func() error { return part(run) })
	}
	err := g.Wait()
	if a.cfg.CleanupOnExit {
		err = errors.Join(err, a.leave(context.WithoutCancel(ctx)))
	}
	return errors.Join(err, a.kernel.place.Close())
}

// leave gives the node back: new connections first, then Envoy's connections
// time to end, then every rule. A newer generation's rules are left alone.
func (a *Agent) leave(ctx context.Context) error {
	if err := a.kernel.Release(); err != nil && !errors.Is(err, handover.ErrSuperseded) {
		a.log.Error("pods not released, they expire by themselves", zap.Error(err))
	}
	if a.cfg.DrainTimeout > 0 {
		drain, cancel := context.WithTimeout(ctx, a.cfg.DrainTimeout)
		left, err := a.drain.run(drain)
		cancel()
		a.log.Info("envoy drained", zap.Int("connectionsLeft", left), zap.Error(err))
	}
	clean, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	err := a.kernel.Cleanup(clean)
	if errors.Is(err, handover.ErrSuperseded) {
		a.log.Info("the kernel is left to a newer agent")
		return nil
	}
	if err != nil {
		return fmt.Errorf("clean the kernel: %w", err)
	}
	a.log.Info("the kernel is as it was")
	return nil
}

// envoyGone stops redirecting as soon as the last Envoy's stream ends. It runs
// on the stream's goroutine, so that nothing the loop does delays it. An agent
// that ends leaves the pods redirected: Envoy goes on without it.
func (a *Agent) envoyGone() {
	if a.stopping.Load() {
		return
	}
	if err := a.kernel.Release(); err != nil && !errors.Is(err, handover.ErrSuperseded) {
		a.log.Error("envoy is gone and its pods are not released, they expire by themselves", zap.Error(err))
	}
}
