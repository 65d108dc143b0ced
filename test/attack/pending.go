// SPDX-License-Identifier: Apache-2.0

package main

// pending are the attacks that are known to succeed, with the reason. Take a line away
// when what it names is mended.
func pending() map[string]string {
	const (
		headers = "Envoy's overload manager doesn't count headers, and acts between readings of connections, each of which may bring 40 MB of them by references"
		unfair  = "Envoy is fair to connections, not to pods"
	)
	return map[string]string{
		"1 hpack-within": headers,
		"1 hpack-tiny":   unfair,
		"12 busy-16":     unfair,
		"12 busy-256":    unfair,
		"12 busy-1000":   unfair,
		"12 busy-large":  unfair,
		"12 new":         unfair,
	}
}
