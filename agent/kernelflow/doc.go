// SPDX-License-Identifier: Apache-2.0

// Package kernelflow makes flows of what the kernel tracks: of connections of this node's
// pods that don't go through Envoy. It is pure: redirect/conntrack reads the kernel, and
// the names of pods and Services are added by others.
package kernelflow
