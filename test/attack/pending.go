// SPDX-License-Identifier: Apache-2.0

package main

// pending are the attacks that are known to succeed, with the reason. Take a line away
// when what it names is mended.
func pending() map[string]string {
	const (
		clusters = "there is no budget of clusters"
		unfair   = "Envoy is fair to connections, not to pods"
	)
	return map[string]string{
		"5 ports":       clusters,
		"12 busy-16":    unfair,
		"12 busy-256":   unfair,
		"12 busy-1000":  unfair,
		"12 busy-large": unfair,
		"12 new":        unfair,
	}
}
