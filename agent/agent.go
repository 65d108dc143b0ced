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
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nodevoy/nodevoy/agent/budget"
	"github.com/nodevoy/nodevoy/agent/envoyadmin"
	"github.com/nodevoy/nodevoy/agent/files"
	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/kube"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/redirect/probe"
	"github.com/nodevoy/nodevoy/xds"
	xdsflows "github.com/nodevoy/nodevoy/xds/flows"
	"github.com/nodevoy/nodevoy/xds/server"
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
	kernel *handover.Fence
	// pods is nil in host mode.
	pods  *pods.Pods
	local localNetworks
	envoy *envoyadmin.Envoy
	state *atomic.Pointer[State]
	parts []runner
	// stopping is set once the agent itself is ending.
	stopping atomic.Bool
}

// New probes the node, acquires a slot on it and wires the agent's parts. It
// starts none of them. An error names what the node lacks, or the setting that
// can't be used.
func New(ctx context.Context, cfg Config, log *zap.Logger) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	findings, err := probe.Run(ctx, cfg.Redirect, cfg.Netns, log.Named("probe"))
	if err != nil {
		return nil, fmt.Errorf("this node can't redirect: %w", err)
	}
	for _, why := range findings.Reasons {
		log.Info("node probed", zap.String("finding", why))
	}
	cfg.Redirect = findings.Resolve(cfg.Redirect)
	cfg = cfg.Resolved()
	log.Info("mode chosen", zap.Stringer("mode", cfg.Redirect.Mode))
	local, err := openLocal(cfg.Redirect)
	if err != nil {
		return nil, err
	}
	lease, err := acquire(cfg)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg.inSlot(lease.Slot()), log: log, state: &atomic.Pointer[State]{}, local: local,
		envoy: envoyadmin.New(cfg.XDS.AdminSocket),
	}
	if a.kernel, a.pods, err = openKernel(a.cfg, lease, log); err != nil {
		return nil, errors.Join(err, lease.Close())
	}
	return a, a.wire(findings)
}

// acquire takes a slot on the node, with ports that nobody listens on. In pod mode
// any slot will do if there is none: pods may listen on whatever they like, and
// must not keep the agent from the others.
func acquire(cfg Config) (*handover.Lease, error) {
	mode := cfg.Redirect.Mode
	lease, err := handover.Acquire(cfg.HostDir, cfg.RunDir, mode.String(), func(slot int) (bool, error) {
		return portsFree(cfg.inSlot(slot))
	})
	if errors.Is(err, handover.ErrFull) && mode == plan.PodMode {
		return handover.Acquire(cfg.HostDir, cfg.RunDir, mode.String(), func(int) (bool, error) { return true, nil })
	}
	return lease, err
}

// wire makes the parts that run.
func (a *Agent) wire(findings probe.Findings) error {
	src, tell, err := a.newSource()
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), newWatchCollector(src.Health))
	l := &loop{
		cfg: a.cfg, source: src, kernel: a.kernel, local: a.local, resume: a.envoy.Resume, cpu: processorTime,
		reporter: &reporter{findings: findings, metrics: newMetrics(registry, a.state), log: a.log.Named("loop"), state: a.state, tell: tell},
	}
	l.proof.prober = newProber(askHost(a.cfg.Redirect, func() server.Status { return l.envoy.Status() }))
	l.leaving = leaving{sampler: newSampler(listConnections(a.cfg.Redirect, a.pods)), ledger: &budget.Ledger{}}
	if a.pods != nil {
		l.pods, l.proof.prober = a.pods, newProber(askPods(a.pods.Ask))
	}
	var envoy *server.Server
	flows := newFlowReceiver(a.cfg.Flows, a.state, registry, func(shares xds.FlowShares) { envoy.SendFlows(shares) })
	envoy, err = server.New(a.cfg.XDS, a.log.Named("xds"), server.OnFlows(xdsflows.Decoder{Query: a.cfg.Flows.Query}, flows.receive), server.OnDisconnect(func() {
		// An agent that ends leaves the pods redirected: Envoy goes on without it.
		if !a.stopping.Load() {
			l.envoyGone()
		}
	}))
	if err != nil {
		return err
	}
	l.envoy = envoy
	health := &healthServer{address: a.cfg.MetricsAddress, state: a.state, stuckAfter: a.cfg.StuckAfter, gatherer: prometheus.Gatherers{registry, a.envoyMetrics()}, log: a.log.Named("health")}
	kernel := newKernelFlows(a.cfg.Flows.Kernel, a.cfg.Redirect, flows, a.log.Named("kernelflows"))
	shown := endpoint{
		Agent: a, health: health.checks(), watches: src.Health, streams: envoy.Streams, flows: flows.log, kernel: kernel, metrics: health.metrics(), standing: envoy.Standing,
	}
	a.parts = append([]runner{
		src.Run, envoy.Run, l.proof.prober.run, l.leaving.sampler.run, l.run, health.run, flows.run, kernel.run,
	}, shown.runners()...)
	if a.pods != nil {
		a.parts = append(a.parts, countLeaving(a.pods.CountLeaving))
	}
	return nil
}

// runnableSource is a source with its own goroutine.
type runnableSource interface {
	source
	Run(ctx context.Context) error
	// Health is how the reading of each kind goes.
	Health() []kinds.Health
}

// newSource opens the configured source of objects; the function returned with
// it tells the owners of objects what is wrong with them now, and is nil where
// there is no way to.
func (a *Agent) newSource() (runnableSource, func([]model.Problem), error) {
	if a.cfg.Objects != "" {
		src, err := files.New(a.cfg.Objects, a.cfg.NodeName, a.log.Named("objects"))
		return src, nil, err
	}
	src, err := kube.New(kube.Config{Kubeconfig: a.cfg.Kubeconfig, NodeName: a.cfg.NodeName, Now: time.Now}, a.log.Named("kube"))
	if err != nil {
		return nil, nil, err
	}
	return src, src.Warn, nil
}

// Run works until ctx ends or a part fails. Rules stay in the kernel, to expire
// unless the next agent takes them over, except when the agent was told to stop
// and removal was asked for. After a failure it is started again: its rules, and
// Envoy, had better go on.
func (a *Agent) Run(ctx context.Context) error {
	g, failed := errgroup.WithContext(context.WithoutCancel(ctx))
	run, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var last *State
	var known map[netip.AddrPort]bool
	g.Go(func() error {
		select {
		case <-failed.Done():
		case <-ctx.Done():
			a.handBack(failed)
		}
		last = a.state.Load()
		known = last.inUse()
		// Before any part can see that the end has come, so that the end of
		// Envoy's stream, which follows, is not taken for the end of Envoy.
		a.stopping.Store(true)
		end()
		return nil
	})
	for _, part := range a.parts {
		g.Go(func() error { return part(run) })
	}
	err := g.Wait()
	if a.cfg.CleanupOnExit && ctx.Err() != nil {
		err = errors.Join(err, a.clean(context.WithoutCancel(ctx)))
	} else if unused := handover.Fault(a.withdrawUnused(context.WithoutCancel(ctx), last, known)); unused != nil {
		err = errors.Join(err, fmt.Errorf("withdraw unused frontends: %w", unused))
	}
	return errors.Join(err, a.kernel.Close())
}

// withdrawUnused leaves in the kernel only the known frontends, those that Envoy has: until the
// next agent is there, nobody can tell it of others, and their connections are
// better off with kube-proxy.
func (a *Agent) withdrawUnused(ctx context.Context, last *State, known map[netip.AddrPort]bool) error {
	if last == nil || last.Node == nil {
		return nil
	}
	node := *last.Node
	node.Frontends = slices.DeleteFunc(slices.Clone(node.Frontends), func(f *model.Frontend) bool {
		return !known[f.Address]
	})
	return a.kernel.Withdraw(ctx, plan.Compile(&node, a.cfg.Redirect))
}

// handBack gives new connections back to kube-proxy, and those that Envoy has time
// to end. Envoy still learns of changes meanwhile: what it holds may outlive its
// backends.
func (a *Agent) handBack(ctx context.Context) {
	if !a.cfg.CleanupOnExit {
		return
	}
	if err := handover.Fault(a.kernel.Leave()); err != nil {
		a.log.Error("redirection not stopped, it expires by itself", zap.Error(err))
	}
	if a.cfg.DrainTimeout == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.DrainTimeout)
	defer cancel()
	left, err := a.envoy.Drain(ctx)
	if err != nil {
		a.log.Warn("envoy not drained", zap.Error(err))
		return
	}
	a.log.Info("envoy drained", zap.Int("connectionsLeft", left))
}

// clean removes every rule. A newer generation's are left alone.
func (a *Agent) clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanupTimeout)
	defer cancel()
	err := a.kernel.Cleanup(ctx)
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
