// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

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
	return p.disengageAnd(ctx, (*apply.Applier).Cleanup)
}

// Drain is Cleanup that leaves in each namespace what connections need that were
// redirected: no new one is.
func (p *Pods) Drain(ctx context.Context) error { return p.disengageAnd(ctx, (*apply.Applier).Drain) }

func (p *Pods) disengageAnd(ctx context.Context, do func(*apply.Applier, context.Context) error) error {
	err := p.Disengage()
	p.Forget()
	p.long.Lock()
	defer p.long.Unlock()
	return errors.Join(err, p.visit(ctx, nil, do))
}

// visit does something in each namespace in which anything of ours is, except in
// those to skip, by inode.
func (p *Pods) visit(ctx context.Context, skip map[uint64]bool, do func(*apply.Applier, context.Context) error) error {
	all, err := p.finder.All()
	return errors.Join(err, parallel(all, func(ns namespace) error {
		err := p.visitOne(ctx, ns, skip, do)
		if err != nil {
			err = fmt.Errorf("network namespace %s: %w", ns.Path(), err)
		}
		return errors.Join(err, ns.Close())
	}))
}

func (p *Pods) visitOne(
	ctx context.Context, ns namespace, skip map[uint64]bool, do func(*apply.Applier, context.Context) error,
) (err error) {
	k, err := p.open(ns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	there, err := hasOurs(ctx, k)
	if err != nil || !there || skip[ns.Inode()] {
		return err
	}
	return do(apply.NewInPod(p.cfg, k, p.group, p.log.With(zap.String("netns", ns.Path()))), ctx)
}

// hasOurs says whether anything of ours is in a pod's namespace.
func hasOurs(ctx context.Context, k apply.Kernel) (bool, error) {
	names, err := k.Sets.Names()
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, plan.SetPrefix) }) {
		return true, nil
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
