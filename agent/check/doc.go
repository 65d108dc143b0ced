// SPDX-License-Identifier: Apache-2.0

// Package check judges what a node has: facts about the node, its agent and its Envoy
// go in, lines that say ok, warning or failed come out, each of the latter two with
// what to do. It is pure; package agent/check/examine gathers the facts. Before an
// install there is no agent to ask, and the lines are about what the node has for one.
package check
