// SPDX-License-Identifier: Apache-2.0

// Package envoyadmin talks to a running Envoy by its admin socket: it drains
// connections, counts those that are left, and ends the draining again, for an
// agent that follows on the same Envoy. It changes what Envoy logs, and reads pages
// that change nothing, without their secrets.
package envoyadmin
