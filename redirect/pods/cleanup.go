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
	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// errUntold says that the rules in a namespace are too many to look at, and that no
// set of ours is there: whether a rule of ours is can't be told, and it would do
// nothing.
var errUntold = errors.New("can't tell whether rules of an earlier agent are left")

// Cleanup removes everything of ours from every network namespace on the node but
// the host's, whoever made it: for a pod that has nothing of ours it is a look.
// Connections that were redirected end where nothing else in the pod has the
// kernel track connections. Empty base chains of iptables stay; they go with the
// pod. It goes on after a failure and returns them all; doing it twice is no error.
// A namespace with too many rules to look at is passed over unless sets of ours are
// in it.
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
	all, listErr := p.finder.All()
	return errors.Join(err, listErr, parallel(all, func(ns namespace) error {
		err := within(ctx, podTime, func(ctx context.Context) error { return p.visit(ctx, ns, do) })
		if errors.Is(err, errUntold) {
			// It may not be a pod of ours at all.
			p.log.Warn("network namespace passed over", zap.Error(err))
			err = nil
		}
		return errors.Join(err, ns.Close())
	}))
}

// visit does something in a namespace if anything of ours is there. The error names
// the namespace.
func (p *Pods) visit(ctx context.Context, ns namespace, do func(*apply.Applier, context.Context) error) (err error) {
	k, err := p.open(ns)
	if err == nil {
		err = errors.Join(p.doIn(ctx, ns, k, do), k.Close())
	}
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", ns.Path(), err)
	}
	return nil
}

func (p *Pods) doIn(ctx context.Context, ns namespace, k apply.Kernel, do func(*apply.Applier, context.Context) error) error {
	there, err := hasOurs(ctx, k)
	if there {
		err = do(apply.NewInPod(p.cfg, k, p.group, p.log.With(zap.String("netns", ns.Path()))), ctx)
	}
	if errors.Is(err, dump.ErrTooMuch) {
		if sets, e := hasSets(k); e == nil && !sets {
			return fmt.Errorf("%w: %w", errUntold, err)
		}
	}
	return err
}

// hasOurs says whether anything of ours may be in a pod's namespace.
func hasOurs(ctx context.Context, k apply.Kernel) (bool, error) {
	if sets, err := hasSets(k); sets || err != nil {
		return sets, err
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

// hasSets says whether there is a set of ours, without which nothing is redirected.
func hasSets(k apply.Kernel) (bool, error) {
	names, err := k.Sets.Names()
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, plan.SetPrefix) }), err
}
