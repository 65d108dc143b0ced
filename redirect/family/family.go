// SPDX-License-Identifier: Apache-2.0

package family

import "net/netip"

// Family is an IP address family.
type Family uint8

// The two families, with their numbers as the kernel has them (AF_INET, AF_INET6).
const (
	V4 Family = 2
	V6 Family = 10
)

// All lists the families, in the order everything is done and shown.
func All() []Family { return []Family{V4, V6} }

// Of is the family of an address. A v4 address mapped into v6 is v4.
func Of(addr netip.Addr) Family {
	if addr.Unmap().Is4() {
		return V4
	}
	return V6
}

// Pick is the first value for V4, the second for V6.
func Pick[T any](f Family, v4, v6 T) T {
	if f == V6 {
		return v6
	}
	return v4
}

// Loopback is the address that every loopback interface has.
func (f Family) Loopback() netip.Addr {
	return Pick(f, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback())
}

// String is "ipv4" or "ipv6".
func (f Family) String() string { return Pick(f, "ipv4", "ipv6") }

// Digit is "4" or "6", as names of sets end.
func (f Family) Digit() string { return Pick(f, "4", "6") }

// INET is "inet" or "inet6", as ipset and nft write it.
func (f Family) INET() string { return Pick(f, "inet", "inet6") }
