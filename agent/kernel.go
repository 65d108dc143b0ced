// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
)

// openKernel opens what the mode redirects with, behind the fence of the lease.
// pods is nil in host mode.
func openKernel(cfg Config, lease *handover.Lease, log *zap.Logger) (*handover.Fence, *pods.Pods, error) {
	sweeper := func(other handover.OtherMode) *handover.Sweeper {
		return handover.NewSweeper(other, time.Now, log.Named("sweep"))
	}
	if cfg.Redirect.Mode == plan.PodMode {
		all, err := pods.New(cfg.Redirect, netns.New(cfg.Netns, time.Now, log.Named("netns")), askInPod, log.Named("redirect"))
		if err != nil {
			return nil, nil, fmt.Errorf("open the pods' network namespaces: %w", err)
		}
		return handover.NewFence(all, lease, sweeper(hostRules(cfg, log))), all, nil
	}
	applier, err := apply.New(cfg.Redirect, log.Named("redirect"))
	if err != nil {
		return nil, nil, fmt.Errorf("open the kernel's tables: %w", err)
	}
	return handover.NewFence(applier, lease, sweeper(podRules(cfg, log))), nil, nil
}

// hostRules are host mode's rules, for an agent in pod mode to remove. It looks
// for them in any case: that is in its own network namespace, and cheap.
func hostRules(cfg Config, log *zap.Logger) handover.OtherMode {
	return handover.OtherMode{
		Always: true,
		Stop:   func(context.Context) error { return withHost(cfg, log, (*apply.Applier).Disengage) },
		Clean:  func(ctx context.Context) error { return CleanHost(ctx, cfg, log) },
	}
}

// CleanHost removes everything of nodevoy's from the node's own network namespace,
// of whatever agent it is.
func CleanHost(ctx context.Context, cfg Config, log *zap.Logger) error {
	return withHost(cfg, log, func(a *apply.Applier) error { return a.Cleanup(ctx) })
}

// withHost opens host mode's part of the kernel for something to do there.
func withHost(cfg Config, log *zap.Logger, do func(*apply.Applier) error) error {
	cfg.Redirect.Mode = plan.HostMode
	applier, err := apply.New(cfg.Redirect, log)
	if err != nil {
		return err
	}
	return errors.Join(do(applier), applier.Close())
}

// podRules are pod mode's rules in all pods, for an agent in host mode to remove.
func podRules(cfg Config, log *zap.Logger) handover.OtherMode {
	return handover.OtherMode{
		Stop: func(ctx context.Context) error {
			return withPods(cfg, log, func(p *pods.Pods) error { return p.Drain(ctx) })
		},
		Clean: func(ctx context.Context) error { return CleanPods(ctx, cfg, log) },
	}
}

// CleanPods removes everything of nodevoy's from the network namespaces of all
// pods, of whatever agent it is.
func CleanPods(ctx context.Context, cfg Config, log *zap.Logger) error {
	return withPods(cfg, log, func(p *pods.Pods) error { return p.Cleanup(ctx) })
}

// withPods opens pod mode's part of the kernel for something to do there.
func withPods(cfg Config, log *zap.Logger, do func(*pods.Pods) error) error {
	cfg.Redirect.Mode = plan.PodMode
	finder := netns.New(cfg.Netns, time.Now, log)
	defer finder.Close()
	all, err := pods.New(cfg.Redirect, finder, askInPod, log)
	if err != nil {
		return err
	}
	return errors.Join(do(all), all.Close())
}

// portsFree says whether nobody listens on any of the listeners' ports: in pod
// mode, in any pod, where an Envoy whose agent is gone may. There, what can't be
// checked is free; on the host it is an error.
func portsFree(cfg Config) (bool, error) {
	if cfg.Redirect.Mode != plan.PodMode {
		err := listenersBindable(cfg)
		if errors.Is(err, unix.EADDRINUSE) {
			return false, nil
		}
		return err == nil, err
	}
	finder := netns.New(cfg.Netns, time.Now, zap.NewNop())
	defer finder.Close()
	namespaces, _ := finder.All() // What is found counts.
	free := true
	for _, namespace := range namespaces {
		err := namespace.Do(func() error { return listenersBindable(cfg) })
		free = free && !errors.Is(err, unix.EADDRINUSE)
		_ = namespace.Close() // Nothing was written.
	}
	return free, nil
}

// listenersBindable joins what bindable says of each address of the listeners.
func listenersBindable(cfg Config) error {
	var errs []error
	for _, f := range cfg.Redirect.Families {
		for _, port := range cfg.Redirect.Ports.All() {
			at := netip.AddrPortFrom(cfg.Redirect.Address(f), port)
			if err := bindable(at); err != nil {
				errs = append(errs, fmt.Errorf("bind %s: %w", at, err))
			}
		}
	}
	return errors.Join(errs...)
}

// bindable returns EADDRINUSE when there is a listener at the address, which need
// not be on the node yet (IP_FREEBIND, ip(7)).
func bindable(at netip.AddrPort) error {
	domain, level, freebind := unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_FREEBIND
	var address unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if at.Addr().Is4() {
		domain, level, freebind = unix.AF_INET, unix.SOL_IP, unix.IP_FREEBIND
		address = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	// Connections that end, but not listeners, leave the port to such a socket.
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.SetsockoptInt(fd, level, freebind, 1))
	if err == nil {
		err = unix.Bind(fd, address)
	}
	return errors.Join(err, unix.Close(fd))
}
