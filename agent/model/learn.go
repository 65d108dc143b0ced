// SPDX-License-Identifier: Apache-2.0

package model

import (
	"net/netip"
	"slices"
)

// Seen is what Envoy has seen on connections to a frontend, by their first bytes. Other
// is also set if the client sent none before the wait for them ended.
type Seen struct {
	HTTP, TLS, Other bool
}

// And is what was seen in both.
func (s Seen) And(o Seen) Seen {
	return Seen{HTTP: s.HTTP || o.HTTP, TLS: s.TLS || o.TLS, Other: s.Other || o.Other}
}

// Learning returns a copy of the node with the classes that follow from what Envoy has
// seen on it, where the protocol is detected; the node itself if none do.
func (n *Node) Learning(seen map[netip.AddrPort]Seen) *Node {
	learned := n
	for at, s := range seen {
		i, ok := n.byAddress[at]
		if !ok || n.Frontends[i].Class != ClassDetect {
			continue
		}
		f := *n.Frontends[i]
		if f.learn(s); f.Class == ClassDetect {
			continue
		}
		if learned == n {
			copied := *n
			copied.Frontends = slices.Clone(n.Frontends)
			learned = &copied
		}
		learned.Frontends[i] = &f
	}
	return learned
}

// learn gives a frontend whose protocol is detected the class that follows from what
// Envoy has seen there. The name of a port outweighs a client that was only slow to
// speak, but not TLS. Without one, HTTP once seen proves little: anybody may send it, and
// the next connection of another protocol would fail.
func (f *Frontend) learn(s Seen) {
	switch {
	case f.NamedHTTP && s.HTTP && !s.TLS:
		f.Class, f.ClassReason = ClassHTTP, "port name "+f.Port.PortName+", and HTTP was seen"
	case f.NamedHTTP && s.TLS && !s.HTTP:
		f.Class, f.ClassReason = ClassTCP, "port name "+f.Port.PortName+", but TLS was seen"
	case !f.NamedHTTP && !s.HTTP && (s.TLS || s.Other):
		f.Class, f.ClassReason = ClassTCP, "no declared protocol, and what was seen is not HTTP; appProtocol declares it"
	}
}
