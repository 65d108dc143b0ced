// SPDX-License-Identifier: Apache-2.0

// Package view is what the agent's debug endpoint answers, as types with JSON tags: the
// agent makes them from its published state, the server sends them, and commands and the
// page read them. Fields are only ever added. agent/debug/openapi.yaml describes each.
package view
