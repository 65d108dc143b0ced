// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// The agent's loop renews the switch of all pods between two steps, every third of
// its timeout. A step that is a pass over pods ends within passTime and podTime.
const (
	// passTime is how long a pass begins with further pods. The next one begins with
	// those that are left.
	passTime = 3 * time.Second
	// podTime bounds the work in one pod: some ten times what it takes on a busy node.
	podTime = 2 * time.Second
)

// errLater says that other pods used up the time of a pass.
var errLater = errors.New("not done yet: other pods took too long")

// begin is a context that ends when a pass begins with no further pod.
func begin(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, passTime, errLater)
}

// pass works on several pods or namespaces, on none for longer than podTime, and
// joins what done makes of the errors. Those that come after the end of open are not
// begun: their error is errLater.
func pass[T any](ctx, open context.Context, list []T, work func(context.Context, T) error, done func(T, error) error) error {
	return parallel(list, func(v T) error {
		if open.Err() != nil {
			return done(v, context.Cause(open))
		}
		return done(v, within(ctx, podTime, func(ctx context.Context) error { return work(ctx, v) }))
	})
}

// within works with a context that ends after a time.
func within(ctx context.Context, limit time.Duration, work func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := work(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("given up after %s: %w", limit, err)
	}
	return err
}

// parallel works on four at a time, and joins what went wrong.
func parallel[T any](list []T, work func(T) error) error {
	errs := make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(4)
	for i, v := range list {
		g.Go(func() error {
			errs[i] = work(v)
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

// each is a pass over pods: those first that failed least, and then those that were
// not worked on for longest.
func (p *Pods) each(
	ctx, open context.Context, pods []*podNetns, work func(context.Context, *podNetns) error, done func(*podNetns, error) error,
) error {
	p.mu.Lock()
	pods = slices.Clone(pods)
	slices.SortStableFunc(pods, func(x, y *podNetns) int {
		return cmp.Or(cmp.Compare(x.backoff.pause, y.backoff.pause), cmp.Compare(x.turn, y.turn))
	})
	p.mu.Unlock()
	return pass(ctx, open, pods, func(ctx context.Context, pod *podNetns) error {
		p.mu.Lock()
		p.turns++
		pod.turn = p.turns
		p.mu.Unlock()
		return work(ctx, pod)
	}, done)
}

// The pauses between attempts at a pod.
const (
	// firstPause is the pause after a pod first failed to be applied, firstSearch
	// after it was first not found; each doubles up to longestPause.
	firstPause   = time.Second
	firstSearch  = 200 * time.Millisecond
	longestPause = time.Minute
)

// backoff paces the attempts at one pod, so that a pod which can't be redirected
// costs next to nothing. The zero value is that of a pod that did not fail.
type backoff struct {
	pause time.Duration
	next  time.Time
}

// due says whether an attempt is worth it at this time.
func (b backoff) due(now time.Time) bool { return !now.Before(b.next) }

// failed notes a failed attempt; first is the pause after the first of them.
func (b *backoff) failed(now time.Time, first time.Duration) {
	b.pause = min(max(first, 2*b.pause), longestPause)
	b.next = now.Add(b.pause)
}
