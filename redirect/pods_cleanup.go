// SPDX-License-Identifier: Apache-2.0

package redirect

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nodevoy/nodevoy/redirect/iptables"
)

// Cleanup removes everything of ours from every network namespace on the node but
// the host's, whoever made it: for a pod that has nothing of ours it is a look.
// Empty base chains of iptables stay, since connections that were redirected need
// them; they go with the pod. It goes on after a failure and returns them all;
// doing it twice is no error.
func (p *Pods) Cleanup(ctx context.Context) error {
	errs := []error{p.Release()}
	p.Forget()
	p.long.Lock()
	defer p.long.Unlock()
	return errors.Join(append(errs, p.cleanup(ctx, func(namespace) bool { return true }))...)
}

// cleanup cleans the namespaces that are to be.
func (p *Pods) cleanup(ctx context.Context, which func(namespace) bool) error {
	all, err := p.finder.All()
	var mu sync.Mutex
	errs := []error{err}
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, ns := range all {
		g.Go(func() error {
			var err error
			if which(ns) {
				err = p.cleanNamespace(ctx, ns)
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err, ns.Close())
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

// cleanNamespace removes what is ours from a namespace, if anything is.
func (p *Pods) cleanNamespace(ctx context.Context, ns namespace) (err error) {
	k, err := p.open(ns)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", ns.Path(), err)
	}
	defer func() { err = errors.Join(err, k.Close()) }()
	there, err := inhabited(ctx, k)
	if err != nil || !there {
		return err
	}
	p.log.Info("removing what is nodevoy's from a pod", zap.String("netns", ns.Path()))
	a := newApplier(p.cfg, k, p.shared, p.log)
	a.inside = true
	if err := a.Cleanup(ctx); err != nil {
		return fmt.Errorf("network namespace %s: %w", ns.Path(), err)
	}
	return nil
}

// inhabited says whether anything of ours is in a pod's namespace.
func inhabited(ctx context.Context, k Kernel) (bool, error) {
	names, err := k.Sets.Names()
	if err != nil {
		return false, err
	}
	for _, n := range names {
		if strings.HasPrefix(n, SetPrefix) {
			return true, nil
		}
	}
	for _, t := range k.Tables {
		_, err := t.List(ctx, "nat", chainOutput)
		if err == nil || errors.Is(err, iptables.ErrUnreadable) {
			return true, nil
		}
		if !errors.Is(err, iptables.ErrNotFound) {
			return false, err
		}
	}
	return false, nil
}
