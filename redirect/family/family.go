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

// Loopback is the address that every loopback interface has.
func (f Family) Loopback() netip.Addr {
	if f == V6 {
		return netip.IPv6Loopback()
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// String is "ipv4" or "ipv6".
func (f Family) String() string {
	if f == V6 {
		return "ipv6"
	}
	return "ipv4"
}

// Digit is "4" or "6", as names of sets end.
func (f Family) Digit() string {
	if f == V6 {
		return "6"
	}
	return "4"
}

// INET is "inet" or "inet6", as ipset and nft write it.
func (f Family) INET() string {
	if f == V6 {
		return "inet6"
	}
	return "inet"
}
