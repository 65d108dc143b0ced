// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/iptables"
)

// A probe that found iptables busy is repeated after busyPause, up to busyLimit
// after the first. Each time waits for the lock, too.
const (
	busyPause = time.Second
	busyLimit = time.Minute
)

// retryBusy repeats a probe while iptables is busy: then nobody can tell what the
// node has. If it stays so, the error wraps iptables.ErrBusy.
func retryBusy(ctx context.Context, log *zap.Logger, probe func() (Findings, error)) (Findings, error) {
	limit := time.NewTimer(busyLimit)
	defer limit.Stop()
	for {
		found, err := probe()
		if !errors.Is(err, iptables.ErrBusy) {
			return found, err
		}
		log.Warn("node can't be probed yet", zap.Error(err), zap.Duration("againIn", busyPause))
		select {
		case <-ctx.Done():
			return Findings{}, ctx.Err()
		case <-limit.C:
			return found, err
		case <-time.After(busyPause):
		}
	}
}

// lockWatch notes that iptables was busy, whatever is made of the error.
type lockWatch struct{ err error }

// watch returns tables that tell the lockWatch. Once iptables was busy, they ask it
// nothing more: the probe is repeated.
func (l *lockWatch) watch(tables []apply.Tables) []apply.Tables {
	watched := make([]apply.Tables, 0, len(tables))
	for _, t := range tables {
		watched = append(watched, apply.Around(t, l.see))
	}
	return watched
}

// result is what a probe returns: nothing that was concluded from a busy iptables.
func (l *lockWatch) result(found Findings, err error) (Findings, error) {
	if l.err != nil {
		return Findings{}, fmt.Errorf("can't tell what the node has: %w", l.err)
	}
	return found, err
}

func (l *lockWatch) see(do func() error) error {
	if l.err != nil {
		return l.err
	}
	err := do()
	if errors.Is(err, iptables.ErrBusy) {
		l.err = err
	}
	return err
}
