// SPDX-License-Identifier: Apache-2.0

// Package debug is the debug endpoint of one node: an HTTP server that shows what the
// agent knows and has done, on a unix socket for its owner, and on a loopback address if
// the agent is told so. It is given functions that answer from published state, and
// computes nothing itself; what they answer is in package view. openapi.yaml describes
// every path. It writes nothing, except for log levels, on the unix socket alone.
package debug
