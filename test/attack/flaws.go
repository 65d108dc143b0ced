// SPDX-License-Identifier: Apache-2.0

package main

// flaw is what an attack is known to do, if it is made by this many pods or more.
type flaw struct {
	pods int
	why  string
}

// by says why, if this many pods suffice; else it is empty.
func (f flaw) by(pods int) string {
	if pods < f.pods {
		return ""
	}
	return f.why
}

// harms are the attacks that are known to end Envoy or to cost others calls, by name.
// Take a line away when what it names is mended.
func harms() map[string]flaw {
	const requests = "no limit is for the requests of a pod or all pods, of which each takes 13 kB: near the heap's bound, Envoy ends anybody's"
	return map[string]flaw{
		"1 hpack-within":  {1, "Envoy's overload manager doesn't count headers, and acts between readings of connections, each of which may bring 40 MB of them by references"},
		"4 h2-window-0":   {8, requests},
		"4 h2-streams":    {8, requests},
		"4 tcp-downloads": {8, "the kernel's receive buffers of connections to backends grow up to net.ipv4.tcp_rmem"},
	}
}

// slows are the attacks that are known to make others' calls slower than they may
// become. By several pods, each may: all of them together have many connections, and
// Envoy's workers serve connections in turn, not pods.
func slows(name string) flaw {
	const unfair = "Envoy is fair to connections, not to pods"
	switch name {
	case "1 hpack-within", "1 hpack-tiny", "4 h2-streams":
		return flaw{1, unfair}
	case "12 busy-16", "12 busy-limited":
		return flaw{}
	}
	return flaw{8, unfair}
}
