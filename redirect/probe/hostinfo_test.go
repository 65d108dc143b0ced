// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"testing"

	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/ebpf"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/iptables"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/redirecttest"
)

// facts are a node's, as a test wants them.
type fakeInfo struct {
	nft    map[family.Family][]string
	sysctl map[string]string
	mode   string
	// nftErr and sysctlErr are why these can't be read.
	nftErr, sysctlErr error
	// onPods and onConnect are eBPF programs, unknown why they can't be seen.
	onPods, onConnect []ebpf.Program
	unknown           error
	preflight         netns.Preflight
	preflightErr      error
	// refusal is why there are no scratch network namespaces, and refuses what
	// their kernel has against writing to some tables.
	refusal error
	refuses func(t *iptables.Fake, text string) error
	t       *testing.T
}

// newFacts are those of a node on which every mode can be used.
func newFakeInfo(t *testing.T) *fakeInfo {
	return &fakeInfo{preflight: netns.Preflight{Dirs: []string{"/run/netns"}, Namespaces: 3}, t: t}
}

func (f *fakeInfo) NFTables(fam family.Family) ([]string, error) { return f.nft[fam], f.nftErr }
func (f *fakeInfo) ProxyMode(context.Context) string             { return f.mode }
func (f *fakeInfo) Sysctl(name string) (string, error) {
	if v, ok := f.sysctl[name]; ok {
		return v, f.sysctlErr
	}
	return map[string]string{"net/ipv6/conf/lo/disable_ipv6": "0"}[name], f.sysctlErr
}
func (f *fakeInfo) PodPrograms() ([]ebpf.Program, error)     { return f.onPods, f.unknown }
func (f *fakeInfo) ConnectPrograms() ([]ebpf.Program, error) { return f.onConnect, f.unknown }
func (f *fakeInfo) Namespaces() (netns.Preflight, error)     { return f.preflight, f.preflightErr }
func (f *fakeInfo) Scratch(fn func(apply.Kernel) error) error {
	if f.refusal != nil {
		return f.refusal
	}
	inside := redirecttest.New(f.t)
	inside.Hook = f.refuses
	return fn(inside.Kernel())
}
