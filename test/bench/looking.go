// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// look is a node with one way of looking at its calls, and what it costs there.
type look struct {
	name   string
	flags  []string
	follow bool
	path   path
	agent  *lab.Agent
}

// looks are the ways, each compared with the first, where nothing can be seen.
func looks() []*look {
	return []*look{
		{name: "blind", flags: []string{"--flows=off", "--access-log=off"}},
		{name: "nobody looks", flags: []string{"--flows=failed", "--access-log=off"}},
		{name: "all flows", flags: []string{"--flows=failed", "--access-log=off"}, follow: true},
		{name: "access log", flags: []string{"--flows=off", "--access-log=text"}},
	}
}

// lookRows are the loads.
func lookRows() []*row {
	return []*row{
		{Name: "HTTP/1.1 at 5,000 rps", protocol: echo.HTTP1, port: 80, rate: 5000},
		{Name: "HTTP/1.1 at most", protocol: echo.HTTP1, port: 80},
		{Name: "gRPC at most", protocol: echo.GRPC, port: echo.GRPCPort},
		{Name: "TCP, new, at most", protocol: echo.TCP, port: echo.TCPPort, fresh: true},
	}
}

// lookSample is one measurement, with the agent's part.
type lookSample struct {
	perSecond, envoy, agent float64
}

// measureLooking prints what it costs to look, in Envoy for each request, in requests a
// second, and in the agent.
func measureLooking(ctx context.Context, cfg config) (err error) {
	b, err := build(ctx)
	if b.Lab != nil {
		defer func() { err = errors.Join(err, b.Close()) }()
	}
	if err != nil {
		return err
	}
	ways := looks()
	g, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	for i, l := range ways {
		if err := l.start(ctx, &b, i, g); err != nil {
			stop()
			return errors.Join(err, g.Wait())
		}
	}
	const line = "%-23s %-13s %12s %8s %12s %8s %12s\n"
	fmt.Printf("\nMedians of %d rounds of %gs; ratios are to blind\n\n"+line, cfg.rounds, cfg.seconds, "", "", "Envoy, us", "", "per second", "", "agent's core")
	for _, r := range lookRows() {
		samples := make([][]lookSample, len(ways))
		for round := range cfg.rounds {
			for i := range ways {
				at := (i + round) % len(ways)
				s, err := ways[at].sample(ctx, &b, r.spec(cfg))
				if err != nil {
					stop()
					return errors.Join(fmt.Errorf("%s, %s: %w", r.Name, ways[at].name, err), g.Wait())
				}
				samples[at] = append(samples[at], s)
			}
		}
		name := r.Name
		for i, l := range ways {
			ratio := func(value func(lookSample) float64) string {
				var ratios []float64
				for round, s := range samples[i] {
					ratios = append(ratios, value(s)/value(samples[0][round]))
				}
				return fmt.Sprintf("%.3f x", median(ratios, func(v float64) float64 { return v }))
			}
			envoy := func(s lookSample) float64 { return s.envoy }
			speed := func(s lookSample) float64 { return s.perSecond }
			share := median(samples[i], func(s lookSample) float64 { return s.agent })
			fmt.Printf(line, name, l.name, fmt.Sprintf("%.1f", median(samples[i], envoy)), ratio(envoy),
				fmt.Sprintf("%.0f", median(samples[i], speed)), ratio(speed), fmt.Sprintf("%.1f %%", 100*share))
			name = ""
		}
	}
	stop()
	return g.Wait()
}

// start adds a node with a client, an agent and an Envoy, and follows its flows if it
// is to, until ctx ends.
func (l *look) start(ctx context.Context, b *fixture, number int, g *errgroup.Group) error {
	node, err := b.AddNode(fmt.Sprintf("node-look-%d", number))
	if err != nil {
		return err
	}
	l.path = path{name: l.name, ownAddress: true}
	if l.path.from, err = node.AddPod("on", fmt.Sprintf("look-%d", number), nil); err != nil {
		return err
	}
	if err := b.Publish(ctx); err != nil {
		return err
	}
	if l.path.envoy, err = node.StartEnvoy(ctx); err != nil {
		return err
	}
	if l.agent, err = node.StartAgent(l.flags...); err != nil {
		return err
	}
	if _, err := l.agent.WaitRedirected(ctx, l.path.from); err != nil {
		return err
	}
	if l.follow {
		g.Go(func() error { return follow(ctx, agent.DebugSocket(node.RunDir())) })
	}
	return nil
}

// follow reads all flows of the agent at this socket, until ctx ends.
func follow(ctx context.Context, socket string) error {
	body, err := ask.Socket("", socket).Open(ctx, "/v1/flows", url.Values{"follow": {""}})
	if err == nil {
		_, err = io.Copy(io.Discard, body)
		err = errors.Join(err, body.Close())
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("flows ended early: %w", cmp.Or(err, io.ErrUnexpectedEOF))
}

// sample runs a load once.
func (l *look) sample(ctx context.Context, b *fixture, spec echo.Spec) (lookSample, error) {
	before, err := l.agent.CPU()
	if err != nil {
		return lookSample{}, err
	}
	start := time.Now()
	got, err := b.sample(ctx, &l.path, spec, false)
	if err != nil {
		return lookSample{}, err
	}
	took := time.Since(start)
	after, err := l.agent.CPU()
	figures := got.figures()
	return lookSample{figures.PerSecond, figures.Envoy, float64(after-before) / float64(took)}, err
}
