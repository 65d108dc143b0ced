// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/redirect"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// openKernel opens what the mode redirects with. pods is nil in host mode, and
// refused says there where Envoy can't listen.
func openKernel(cfg Config, place *handover.Place, refused *refusals, log *zap.Logger) (g guarded, pods *redirect.Pods, err error) {
	g = guarded{place: place, leaving: &atomic.Bool{}}
	if cfg.Redirect.Mode == redirect.PodMode {
		ask := func(ctx context.Context, space *netns.Space, at netip.AddrPort) error {
			if err := refused.in(space.Path()); err != nil {
				return err
			}
			return askInPod(ctx, space, at)
		}
		pods, err = redirect.NewPods(cfg.Redirect, netns.New(cfg.Netns, time.Now, log.Named("netns")), ask, log.Named("redirect"))
		if err != nil {
			return g, nil, fmt.Errorf("open the pods' network namespaces: %w", err)
		}
		g.kernel, g.sweeper = pods, hostSweeper(cfg, log.Named("sweep"))
		return g, pods, nil
	}
	applier, err := redirect.New(cfg.Redirect, log.Named("redirect"))
	if err != nil {
		return g, nil, fmt.Errorf("open the kernel's tables: %w", err)
	}
	g.kernel, g.sweeper = applier, podSweeper(cfg, log.Named("sweep"))
	return g, nil, nil
}

// hostSweeper removes host mode's rules, from an agent in pod mode. It looks
// for them in any case: that is in its own network namespace, and cheap.
func hostSweeper(cfg Config, log *zap.Logger) *sweeper {
	cfg.Redirect.Mode = redirect.HostMode
	do := func(what func(*redirect.Applier) error) error {
		applier, err := redirect.New(cfg.Redirect, log)
		if err != nil {
			return err
		}
		return errors.Join(what(applier), applier.Close())
	}
	return &sweeper{
		always: true, log: log,
		stop:  func(context.Context) error { return do((*redirect.Applier).Release) },
		clean: func(ctx context.Context) error { return do(func(a *redirect.Applier) error { return a.Cleanup(ctx) }) },
	}
}

// podSweeper removes pod mode's rules from all pods, from an agent in host mode.
func podSweeper(cfg Config, log *zap.Logger) *sweeper {
	return &sweeper{
		log: log,
		stop: func(ctx context.Context) error {
			return withPods(cfg, log, func(p *redirect.Pods) error { return p.Rest(ctx) })
		},
		clean: func(ctx context.Context) error { return CleanPods(ctx, cfg, log) },
	}
}

// CleanPods removes everything of nodevoy's from the network namespaces of all
// pods, of whatever agent it is.
func CleanPods(ctx context.Context, cfg Config, log *zap.Logger) error {
	return withPods(cfg, log, func(p *redirect.Pods) error { return p.Cleanup(ctx) })
}

// withPods opens pod mode's part of the kernel for something to do there.
func withPods(cfg Config, log *zap.Logger, do func(*redirect.Pods) error) error {
	cfg.Redirect.Mode = redirect.PodMode
	finder := netns.New(cfg.Netns, time.Now, log)
	defer finder.Close()
	pods, err := redirect.NewPods(cfg.Redirect, finder, askInPod, log)
	if err != nil {
		return err
	}
	return errors.Join(do(pods), pods.Close())
}

// askInPod asks Envoy's listener at an address inside a pod.
func askInPod(ctx context.Context, space *netns.Space, at netip.AddrPort) error {
	dialer := &net.Dialer{Timeout: probeTimeout}
	client := askClient(func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = space.Do(func() error {
			conn, err = dialer.DialContext(ctx, network, address)
			return err
		})
		return conn, err
	})
	return ask(ctx, client, at.String())
}

// podPortsFree says whether nobody listens on any of the listeners' ports in
// any pod: an Envoy whose agent is gone may. What can't be looked at is free.
func podPortsFree(cfg Config) bool {
	finder := netns.New(cfg.Netns, time.Now, zap.NewNop())
	defer finder.Close()
	spaces, _ := finder.All() // What is found counts.
	free := true
	for _, space := range spaces {
		for _, port := range cfg.Redirect.Ports.All() {
			err := space.Do(func() error { return bindable(port) })
			free = free && !errors.Is(err, unix.EADDRINUSE)
		}
		_ = space.Close() // It was only looked at.
	}
	return free
}

// bindable returns EADDRINUSE when there is a listener on the loopback
// interface's port.
func bindable(port uint16) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// Connections that end, but not listeners, leave the port to such a socket.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}})
	}
	return errors.Join(err, unix.Close(fd))
}
