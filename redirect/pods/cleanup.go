// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// Cleanup removes everything of ours from every network namespace on the node but
// the host's, whoever made it: for a pod that has nothing of ours it is a look.
// Connections that were redirected end where nothing else in the pod has the
// kernel track connections. Empty base chains of iptables stay; they go with the
// pod. It goes on after a failure and returns them all; doing it twice is no error.
func (p *Pods) Cleanup(ctx context.Context) error {
	errs := []error{p.Disengage()}
	p.Forget()
	p.long.Lock()
	defer p.long.Unlock()
	return errors.Join(append(errs, p.visit(ctx, func(ctx context.Context, _ namespace, a *apply.Applier) error { return a.Cleanup(ctx) }))...)
}

// Drain is Cleanup that leaves in each namespace what connections need that were
// redirected: no new one is.
func (p *Pods) Drain(ctx context.Context) error {
	errs := []error{p.Disengage()}
	p.Forget()
	p.long.Lock()
	defer p.long.Unlock()
	return errors.Join(append(errs, p.visit(ctx, func(ctx context.Context, _ namespace, a *apply.Applier) error { return a.Drain(ctx) }))...)
}

// visit does something in each namespace in which anything of ours is.
func (p *Pods) visit(ctx context.Context, do func(context.Context, namespace, *apply.Applier) error) error {
	all, err := p.finder.All()
	var mu sync.Mutex
	errs := []error{err}
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, ns := range all {
		g.Go(func() error {
			err := p.visitOne(ctx, ns, do)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err, ns.Close())
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

func (p *Pods) visitOne(ctx context.Context, ns namespace, do func(context.Context, namespace, *apply.Applier) error) (err error) {
	k, err := p.open(ns)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", ns.Path(), err)
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	there, err := hasOurs(ctx, k)
	if err != nil || !there {
		return err
	}
	a := apply.NewInPod(p.cfg, k, p.group, p.log.With(zap.String("netns", ns.Path())))
	if err := do(ctx, ns, a); err != nil {
		return fmt.Errorf("network namespace %s: %w", ns.Path(), err)
	}
	return nil
}

// hasOurs says whether anything of ours is in a pod's namespace.
func hasOurs(ctx context.Context, k apply.Kernel) (bool, error) {
	names, err := k.Sets.Names()
	if err != nil {
		return false, err
	}
	for _, n := range names {
		if strings.HasPrefix(n, plan.SetPrefix) {
			return true, nil
		}
	}
	for _, t := range k.Tables {
		_, err := t.List(ctx, "nat", plan.ChainOutput)
		if iptables.Present(err) {
			return true, nil
		}
		if !errors.Is(err, iptables.ErrNotFound) {
			return false, err
		}
	}
	return false, nil
}
