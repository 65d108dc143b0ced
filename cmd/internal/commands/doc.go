// SPDX-License-Identifier: Apache-2.0

// Package commands are the commands that ask agents: of one node in the agent's own
// container, and of all nodes of a cluster in kubectl's plugin. A Site says which agents
// there are and how they are reached. Each command prints a table for people, or JSON or
// YAML, and its exit code says whether all was well.
package commands
