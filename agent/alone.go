// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/debug/table"
	"github.com/nodevoy/nodevoy/agent/healthcheck"
	"github.com/nodevoy/nodevoy/agent/look"
	"github.com/nodevoy/nodevoy/agent/why"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

// Alone is what can be told without an agent: what the kernel still redirects, for how
// long, and whether Envoy serves. unanswered is why the agent gave no answer.
func Alone(ctx context.Context, cfg Config, q why.Question, unanswered error) why.Answer {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	a := why.Alone{Now: time.Now(), Node: cfg.NodeName, Unanswered: unanswered.Error()}
	if err := healthcheck.Check(ctx, cfg.RunDir, healthcheck.Envoy); err != nil {
		a.EnvoyErr = err.Error()
	}
	ip, _ := netip.ParseAddr(q.From)
	to, _ := netip.ParseAddrPort(q.To)
	collect := func(where string) error {
		sources, destination, err := look.Redirected(to)
		for _, entry := range sources {
			if !ip.IsValid() || entry.Member == ip.Unmap().String() {
				a.Redirected = append(a.Redirected, why.Redirected{Entry: entry, Where: where, Destination: destination})
			}
		}
		return err
	}
	errs := []error{collect("the node")}
	finder := netns.New(cfg.Netns, time.Now, zap.NewNop())
	defer finder.Close()
	all, err := finder.All()
	errs = append(errs, err)
	for _, namespace := range all {
		err := namespace.Do(func() error { return collect(namespace.Path()) })
		if !errors.Is(err, netns.ErrGone) {
			errs = append(errs, err)
		}
		_ = namespace.Close() // Nothing was written.
	}
	a.KernelErr = text(errors.Join(errs...))
	answer := why.ExplainAlone(&a, q)
	answer.Apply(table.Printable)
	return answer
}
