// SPDX-License-Identifier: Apache-2.0

// Package server sends this node's configuration to its Envoy: delta ADS over a
// unix socket, each resource when Envoy asks for it and again when it changes.
// It tells what Envoy has accepted and what it has refused. What a resource is
// made of is the business of package xds; this package starts no Envoy and
// touches no kernel.
package server
