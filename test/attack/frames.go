// SPDX-License-Identifier: Apache-2.0

package main

// frameAttacks are floods of frames and requests that cost the sender little.
func frameAttacks() []attack { return nil }
