// SPDX-License-Identifier: Apache-2.0

// Package bundle writes what agents know into one archive, for who looks into a problem
// without access to the cluster: what the debug endpoint answers, metrics, flows, and
// Envoy's configuration and statistics. Files are bounded in size. What callers sent is
// left out: paths of flows are without their query, and what looks like a credential is
// replaced. What could not be had is named in the archive.
package bundle
