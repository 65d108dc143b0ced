// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// TestBusy: a lock that another process holds is not a requirement that is missing.
// The findings are those of the same node without it.
func TestBusy(t *testing.T) {
	for _, mode := range []plan.Mode{plan.HostMode, plan.PodMode, plan.AutoMode} {
		for name, held := range map[string]time.Duration{"for a while": 20 * time.Second, "on and on": time.Hour} {
			t.Run(mode.String()+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b, f := redirecttest.New(t), newFakeInfo(t)
					b.Cfg.Mode = mode
					run := func() (Findings, error) { return RunWith(t.Context(), b.Cfg, b.Kernel(), f) }
					want, err := run()
					b.Must(err)
					begin := time.Now()
					for _, fake := range b.Tables {
						fake.Busy = func() bool { return time.Since(begin) < held }
					}
					got, err := retryUnknown(t.Context(), zap.NewNop(), run)
					if held < retryLimit {
						b.Must(err)
						if d := cmp.Diff(want, got); d != "" {
							t.Errorf("findings (-free +busy):\n%s", d)
						}
						return
					}
					var missing *MissingRequirement
					if !errors.Is(err, ErrUnknown) || !errors.Is(err, iptables.ErrBusy) || errors.As(err, &missing) {
						t.Errorf("error %v, want only ErrBusy", err)
					}
					if took := time.Since(begin); took < retryLimit || took > 2*retryLimit {
						t.Errorf("given up after %v", took)
					}
				})
			})
		}
	}
}

// TestBusyUntilTheEnd: an agent that is to end doesn't wait.
func TestBusyUntilTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := retryUnknown(ctx, zap.NewNop(), func() (Findings, error) { return Findings{}, ErrUnknown })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// unknown is something that fails, and the modes that ask for it.
type unknown struct {
	spoil func(b *redirecttest.Fixture, k *apply.Kernel, info *fakeInfo)
	modes []plan.Mode
}

// TestUnknown: an error that is no answer leaves the question open, whatever was asked.
// Nothing is decided by it, and nothing said to be missing.
func TestUnknown(t *testing.T) {
	hosts, inPods := []plan.Mode{plan.HostMode}, []plan.Mode{plan.PodMode, plan.AutoMode}
	all := slices.Concat(hosts, inPods)
	network := func(call string) func(b *redirecttest.Fixture, _ *apply.Kernel, info *fakeInfo) {
		return func(b *redirecttest.Fixture, _ *apply.Kernel, info *fakeInfo) {
			info.mode = "nftables"
			b.Network.Fault = func(is string, _ family.Family) error {
				if is == call {
					return syscall.ENOBUFS
				}
				return nil
			}
		}
	}
	for what, fail := range map[string]unknown{
		"nf_tables": {func(_ *redirecttest.Fixture, _ *apply.Kernel, info *fakeInfo) { info.nftErr = syscall.EMFILE }, all},
		"too many nf_tables": {func(_ *redirecttest.Fixture, _ *apply.Kernel, info *fakeInfo) {
			info.nftErr = fmt.Errorf("list ipv4 nf_tables: %w", dump.ErrTooMuch)
		}, all},
		"sysctls": {func(_ *redirecttest.Fixture, _ *apply.Kernel, info *fakeInfo) {
			info.sysctl, info.sysctlErr = map[string]string{"net/ipv6/conf/lo/disable_ipv6": ""}, syscall.EMFILE
		}, all},
		"names of sets": {func(b *redirecttest.Fixture, k *apply.Kernel, _ *fakeInfo) {
			k.Sets = brokenSets{Fake: b.Sets, names: syscall.ENOMEM}
		}, all},
		"ipset": {func(b *redirecttest.Fixture, k *apply.Kernel, _ *fakeInfo) {
			k.Sets = brokenSets{Fake: b.Sets, err: syscall.ENOMEM}
		}, hosts},
		"a set": {func(b *redirecttest.Fixture, k *apply.Kernel, _ *fakeInfo) {
			k.Sets = brokenSets{Fake: b.Sets, create: syscall.ENOMEM}
		}, hosts},
		"commands": {func(_ *redirecttest.Fixture, k *apply.Kernel, _ *fakeInfo) {
			for i, t := range k.Tables {
				k.Tables[i] = apply.Around(t, func(func() error) error { return syscall.EAGAIN })
			}
		}, all},
		"IPv6's commands": {func(_ *redirecttest.Fixture, k *apply.Kernel, _ *fakeInfo) {
			for i, t := range k.Tables {
				if t.Family() == family.V6 {
					k.Tables[i] = apply.Around(t, func(func() error) error { return syscall.EAGAIN })
				}
			}
		}, all},
		"trying the rules": {func(_ *redirecttest.Fixture, k *apply.Kernel, _ *fakeInfo) {
			for i, t := range k.Tables {
				k.Tables[i] = untested{t}
			}
		}, hosts},
		"rules of pods": {func(_ *redirecttest.Fixture, _ *apply.Kernel, info *fakeInfo) {
			info.refuses = func(*iptables.Fake, string) error { return errors.New("signal: killed") }
		}, inPods},
		"rules of pods by IPv6": {func(_ *redirecttest.Fixture, _ *apply.Kernel, info *fakeInfo) {
			info.refuses = func(t *iptables.Fake, _ string) error {
				if t.Family() == family.V6 {
					return errors.New("signal: killed")
				}
				return nil
			}
		}, inPods},
		"network namespaces": {func(_ *redirecttest.Fixture, _ *apply.Kernel, info *fakeInfo) {
			info.preflight, info.preflightErr = netns.Preflight{}, &os.PathError{Op: "open", Path: "/run/netns", Err: syscall.EMFILE}
		}, inPods},
		"a network namespace": {func(_ *redirecttest.Fixture, _ *apply.Kernel, info *fakeInfo) { info.refusal = syscall.ENOMEM }, inPods},
		"bridges":             {network("Bridged"), hosts},
		"policy rules":        {network("Marks"), hosts},
	} {
		for _, mode := range fail.modes {
			t.Run(what+" "+mode.String(), func(t *testing.T) {
				b, info := redirecttest.New(t), newFakeInfo(t)
				b.Cfg = plan.DefaultConfig()
				b.Cfg.Mode = mode
				k := b.Kernel()
				fail.spoil(b, &k, info)
				found, err := RunWith(t.Context(), b.Cfg, k, info)
				if !errors.Is(err, ErrUnknown) || found.Mode != "" {
					t.Errorf("found %+v, %v; want ErrUnknown alone", found, err)
				}
				if _, missing := errors.AsType[*MissingRequirement](err); missing {
					t.Errorf("a missing requirement: %v", err)
				}
			})
		}
	}
}

// untested are tables whose Test is killed.
type untested struct{ apply.Tables }

func (untested) Test(context.Context, string) error { return errors.New("signal: killed") }

// TestOpenChains: a chain that can't be listed, but is there, is an answer.
func TestOpenChains(t *testing.T) {
	b, info := redirecttest.New(t), newFakeInfo(t)
	b.Cfg = plan.DefaultConfig()
	b.Cfg.Mode = plan.HostMode
	for _, fake := range b.Tables {
		if fake.Family() == family.V6 {
			b.Must(fake.Restore(t.Context(), "*filter\n"+strings.Repeat("-A INPUT -j ACCEPT\n", iptables.MaxRules+1)+"COMMIT\n"))
		}
	}
	found, err := RunWith(t.Context(), b.Cfg, b.Kernel(), info)
	b.Must(err)
	if len(found.Families) != 2 {
		t.Errorf("found %+v", found)
	}
}
