// SPDX-License-Identifier: Apache-2.0

// Package flow is who called whom: a Flow is one request or one connection of a pod
// of this node, and a Log keeps the last ones and gives new ones to those who follow.
// The package is pure: others read flows from Envoy and from the kernel, a Namer gives
// them the names of pods and Services, and nothing here waits for a reader.
package flow
