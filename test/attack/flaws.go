// SPDX-License-Identifier: Apache-2.0

package main

// flaw is why an attack is known to succeed, if it is made by this many pods or more.
type flaw struct {
	pods int
	why  string
}

// flaws are the attacks that are known to succeed, by name. Take a line away when what
// it names is mended.
func flaws() map[string]flaw {
	const (
		headers = "Envoy's overload manager doesn't count headers, and acts between readings of connections, each of which may bring 40 MB of them by references"
		unfair  = "Envoy is fair to connections, not to pods"
	)
	return map[string]flaw{
		"1 hpack":        {8, unfair},
		"1 hpack-within": {1, headers},
		"1 hpack-tiny":   {1, unfair},
		"12 busy-256":    {8, unfair},
		"12 busy-1000":   {8, unfair},
		"12 busy-large":  {8, unfair},
		"12 new":         {8, unfair},
	}
}
