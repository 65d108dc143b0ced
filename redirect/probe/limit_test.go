// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// uncounting are tables that have something against a match.
type uncounting struct {
	apply.Tables
	match string
	err   error
}

func (u uncounting) Test(ctx context.Context, text string) error {
	if strings.Contains(text, u.match) {
		return u.err
	}
	return u.Tables.Test(ctx, text)
}

// without has the tables refuse rules with a match, unless err is nil.
func without(k *apply.Kernel, match string, err error) {
	for i := range k.Tables {
		if err != nil {
			k.Tables[i] = uncounting{k.Tables[i], match, err}
		}
	}
}

// TestLimit: whether connections of pods are limited, on nodes that can count them,
// can't, and don't tell. It never decides whether pods are redirected.
func TestLimit(t *testing.T) {
	lack := fmt.Errorf("couldn't load match connlimit: %w", iptables.ErrUnsupported)
	for name, tc := range map[string]struct {
		cfg       func(c *plan.Config)
		refusal   error
		uncounted bool
		reason    string
	}{
		"counted":       {func(*plan.Config) {}, nil, false, "at most 128 connections of a pod are redirected at a time"},
		"unlimited":     {func(c *plan.Config) { c.MaxConnections = 0 }, lack, false, "connections of a pod are not limited: that was asked for"},
		"not there":     {func(*plan.Config) {}, lack, true, "warning: connections of a pod are not limited, for want of the match connlimit (modprobe xt_connlimit): couldn't load"},
		"can't tell":    {func(*plan.Config) {}, syscall.EAGAIN, false, ""},
		"not by tproxy": {func(c *plan.Config) { c.Mechanism = plan.TPROXY }, nil, true, "with mechanism tproxy, conntrack knows nothing of them"},
	} {
		for _, mode := range []plan.Mode{plan.HostMode, plan.PodMode} {
			t.Run(name+" "+mode.String(), func(t *testing.T) {
				b, info := redirecttest.New(t), newFakeInfo(t)
				b.Cfg = plan.DefaultConfig()
				b.Cfg.Mode = mode
				tc.cfg(&b.Cfg)
				k := b.Kernel()
				if tc.refusal != nil {
					without(&k, "connlimit", tc.refusal)
					info.refuses = func(_ *iptables.Fake, text string) error {
						if strings.Contains(text, "connlimit") {
							return tc.refusal
						}
						return nil
					}
				}
				got, err := RunWith(t.Context(), b.Cfg, k, info)
				if tc.reason == "" {
					if !errors.Is(err, ErrUnknown) {
						t.Errorf("found %+v, %v; want ErrUnknown", got, err)
					}
					return
				}
				b.Must(err)
				uncounted, reason := tc.uncounted, tc.reason
				if mode == plan.PodMode && b.Cfg.Mechanism == plan.TPROXY {
					// Which is host mode's.
					uncounted, reason = false, "at most 128 connections"
				}
				if got.Mode != mode || len(got.Families) != 2 || got.Uncounted != uncounted || !strings.Contains(strings.Join(got.Reasons, "\n"), reason) {
					t.Errorf("found %+v, want reason %q", got, reason)
				}
				if resolved := got.Resolve(b.Cfg); resolved.Limited() != (!uncounted && b.Cfg.MaxConnections > 0) {
					t.Errorf("limited: %v", resolved.Limited())
				}
			})
		}
	}
}

// TestRateLimit is TestLimit for the rate of connections, which is no matter of their
// number.
func TestRateLimit(t *testing.T) {
	lack := fmt.Errorf("couldn't load match hashlimit: %w", iptables.ErrUnsupported)
	for name, tc := range map[string]struct {
		rate       uint32
		mechanism  plan.Mechanism
		refusal    error
		unmeasured bool
		reason     string
	}{
		"measured":      {70, plan.DNAT, nil, false, "at most 70 connections of a pod are redirected in a second"},
		"off":           {0, plan.DNAT, lack, false, "at most 128 connections"},
		"not there":     {70, plan.DNAT, lack, true, "warning: connections of a pod in a second are not limited, for want of the match hashlimit (modprobe xt_hashlimit): couldn't load"},
		"can't tell":    {70, plan.DNAT, syscall.EAGAIN, false, ""},
		"not by tproxy": {70, plan.TPROXY, nil, true, "warning: connections of a pod in a second are not limited: with mechanism tproxy"},
	} {
		t.Run(name, func(t *testing.T) {
			b, info := redirecttest.New(t), newFakeInfo(t)
			b.Cfg = plan.DefaultConfig()
			b.Cfg.Mode, b.Cfg.Mechanism, b.Cfg.MaxConnectionRate = plan.HostMode, tc.mechanism, tc.rate
			k := b.Kernel()
			without(&k, "hashlimit", tc.refusal)
			got, err := RunWith(t.Context(), b.Cfg, k, info)
			if tc.reason == "" {
				if !errors.Is(err, ErrUnknown) {
					t.Errorf("found %+v, %v; want ErrUnknown", got, err)
				}
				return
			}
			b.Must(err)
			if got.Unmeasured != tc.unmeasured || got.Uncounted != (tc.mechanism == plan.TPROXY) || !strings.Contains(strings.Join(got.Reasons, "\n"), tc.reason) {
				t.Errorf("found %+v, want reason %q", got, tc.reason)
			}
			if resolved := got.Resolve(b.Cfg); resolved.RateLimited() != (!tc.unmeasured && tc.rate > 0) {
				t.Errorf("limited: %v", resolved.RateLimited())
			}
		})
	}
}

// TestGuard: what host mode does where the kernel can't tell Envoy's sockets from
// others: it redirects, and says what is open.
func TestGuard(t *testing.T) {
	lack := fmt.Errorf("couldn't load match socket: %w", iptables.ErrUnsupported)
	for name, tc := range map[string]struct {
		refusal   error
		unguarded bool
		reason    string
	}{
		"there":      {nil, false, ""},
		"not there":  {lack, true, "warning: a Service with an endpoint at Envoy's address reaches what listens on all addresses of the node, for want of the match socket (modprobe xt_socket): couldn't load"},
		"can't tell": {syscall.EAGAIN, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := redirecttest.New(t)
			b.Cfg = plan.DefaultConfig()
			b.Cfg.Mode, b.Cfg.Mechanism = plan.HostMode, plan.DNAT
			k := b.Kernel()
			without(&k, "-m socket", tc.refusal)
			got, err := RunWith(t.Context(), b.Cfg, k, newFakeInfo(t))
			if errors.Is(tc.refusal, syscall.EAGAIN) {
				if !errors.Is(err, ErrUnknown) {
					t.Errorf("found %+v, %v; want ErrUnknown", got, err)
				}
				return
			}
			b.Must(err)
			rules := plan.Compile(redirecttest.Node(t, nil), got.Resolve(b.Cfg)).Families[0].RenderRules()
			if got.Unguarded != tc.unguarded || !strings.Contains(strings.Join(got.Reasons, "\n"), tc.reason) || strings.Contains(rules, "-m socket") == tc.unguarded {
				t.Errorf("found %+v, want reason %q; rules:\n%s", got, tc.reason, rules)
			}
		})
	}
}
