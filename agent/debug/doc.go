// SPDX-License-Identifier: Apache-2.0

// Package debug serves what the agent knows and has done, on a unix socket of
// this node: as a View at /status, and as two short health checks for probes. The
// agent makes both from its published state; nothing is computed on request. The
// command line reads the same View back and prints it.
package debug
