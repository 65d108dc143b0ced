// SPDX-License-Identifier: Apache-2.0

package route

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Fake has addresses, rules and routes in memory. The contract test runs on it
// and on the kernel.
type Fake struct {
	// BridgePort is what Bridged answers.
	BridgePort string
	// Fault is asked for an error of DeleteRule, Marks and Bridged; nil for none.
	Fault func(call string, f family.Family) error

	mu        sync.Mutex
	addresses []netip.Addr
	rules     []netfilter.PolicyRule
}

// NewFake makes a kernel whose lo has no address but 127.0.0.1 and ::1.
func NewFake() *Fake {
	return &Fake{addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}}
}

// Close does nothing: a Fake has no socket.
func (f *Fake) Close() error { return nil }

// Addresses is as Network.Addresses.
func (f *Fake) Addresses(fam family.Family) ([]netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.addresses), func(a netip.Addr) bool { return family.Of(a) != fam }), nil
}

// AddAddress is as Network.AddAddress.
func (f *Fake) AddAddress(addr netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.addresses, addr) {
		f.addresses = append(f.addresses, addr)
	}
	return nil
}

// DeleteAddress is as Network.DeleteAddress.
func (f *Fake) DeleteAddress(addr netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addresses = slices.DeleteFunc(f.addresses, func(a netip.Addr) bool { return a == addr })
	return nil
}

// AddRule is as Network.AddRule.
func (f *Fake) AddRule(r netfilter.PolicyRule) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.rules, r) {
		f.rules = append(f.rules, r)
	}
	return nil
}

// DeleteRule is as Network.DeleteRule.
func (f *Fake) DeleteRule(r netfilter.PolicyRule) error {
	if err := f.fault("DeleteRule", r.Family); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = slices.DeleteFunc(f.rules, func(x netfilter.PolicyRule) bool { return x == r })
	return nil
}

// HasRule is as Network.HasRule.
func (f *Fake) HasRule(r netfilter.PolicyRule) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.rules, r), nil
}

// Marks is as Network.Marks.
func (f *Fake) Marks(fam family.Family) ([]Foreign, error) {
	if err := f.fault("Marks", fam); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []Foreign
	for _, r := range f.rules {
		if r.Family == fam {
			found = append(found, Foreign{Mark: r.Mark, Mask: r.Mark, Table: r.Table, Priority: r.Priority})
		}
	}
	return found, nil
}

// Bridged is as Network.Bridged.
func (f *Fake) Bridged(fam family.Family) (string, error) {
	return f.BridgePort, f.fault("Bridged", fam)
}

func (f *Fake) fault(call string, fam family.Family) error {
	if f.Fault == nil {
		return nil
	}
	return f.Fault(call, fam)
}
