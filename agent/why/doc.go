// SPDX-License-Identifier: Apache-2.0

// Package why says where the calls of one pod to one destination go, and why: in one
// sentence, and as the chain of what decides it, each link with its state and what
// shows it. Resolve finds out what is asked about; Explain makes the answer of what
// the agent has published, and of what was seen on the node where somebody looked.
//
// The package is pure: it looks at nothing itself.
package why
