// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/ipset"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// ErrUnknown says that something could neither be found nor be known to be missing:
// another process held iptables' lock, files or memory were short, a command was
// killed.
var ErrUnknown = errors.New("can't tell what the node has")

// errNoIPv6 is what a kernel says that was started with ipv6.disable=1.
var errNoIPv6 = errors.New("the kernel was started without it")

// A probe that couldn't tell is repeated after retryPause, up to retryLimit after the
// first.
const (
	retryPause = time.Second
	retryLimit = time.Minute
)

// retryUnknown repeats a probe while its error is ErrUnknown.
func retryUnknown(ctx context.Context, log *zap.Logger, probe func() (Findings, error)) (Findings, error) {
	limit := time.NewTimer(retryLimit)
	defer limit.Stop()
	for {
		found, err := probe()
		if !errors.Is(err, ErrUnknown) {
			return found, err
		}
		log.Warn("node can't be probed yet", zap.Error(err), zap.Duration("againIn", retryPause))
		select {
		case <-ctx.Done():
			return Findings{}, errors.Join(err, ctx.Err())
		case <-limit.C:
			return found, err
		case <-time.After(retryPause):
		}
	}
}

// isAnswer says whether an error means that something is not there, or not allowed.
// Only these do: any other leaves the question open.
func isAnswer(err error) bool {
	answers := []error{
		os.ErrNotExist, os.ErrPermission, errNoIPv6, netns.ErrNotPermitted, apply.ErrBridged,
		iptables.ErrNoCommand, iptables.ErrUnsupported, ipset.ErrNoType,
		// The kernel has no such protocol, family or message, or no more namespaces.
		syscall.EPROTONOSUPPORT, syscall.EAFNOSUPPORT, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EINVAL, syscall.ENOSPC,
	}
	return slices.ContainsFunc(answers, func(a error) bool { return errors.Is(err, a) })
}

// doubt is the first error of a probe that left a question open.
type doubt struct{ err error }

// judge returns the error, and notes one that is no answer.
func (d *doubt) judge(err error) error {
	if err != nil && d.err == nil && !isAnswer(err) {
		d.err = err
	}
	return err
}

// watch returns tables whose errors are judged. Once there is doubt they are asked
// nothing more, since each answer may take a command's time: the probe is repeated.
func (d *doubt) watch(tables []apply.Tables) []apply.Tables {
	watched := make([]apply.Tables, 0, len(tables))
	for _, t := range tables {
		watched = append(watched, apply.Around(t, d.see))
	}
	return watched
}

func (d *doubt) see(do func() error) error {
	if d.err != nil {
		return d.err
	}
	err := do()
	if iptables.Present(err) || errors.Is(err, iptables.ErrNotFound) {
		return err
	}
	return d.judge(err)
}

// result is what a probe returns: nothing that was concluded in doubt.
func (d *doubt) result(found Findings, err error) (Findings, error) {
	if d.err != nil {
		return Findings{}, fmt.Errorf("%w: %w", ErrUnknown, d.err)
	}
	return found, err
}
