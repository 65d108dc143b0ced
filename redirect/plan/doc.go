// SPDX-License-Identifier: Apache-2.0

// Package plan says what the kernel must hold so that enrolled pods' connections
// to Services go to the node's Envoy. Compile makes a Plan of a model.Node and a
// Config; a Plan is data, and can be rendered as text. Iptables rules are constant in
// number: only members of ipsets follow pods and Services. Every name and number that
// nodevoy takes on a node is in reserved.go.
//
// The package is pure: it touches no kernel, reads no clock and starts nothing.
package plan
