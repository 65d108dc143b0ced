// SPDX-License-Identifier: Apache-2.0

// Package budget decides which frontends are left to kube-proxy so that those in
// use fit into the memory that Envoy has for them. It is pure: what is in use, and
// what connections there are, goes in; which frontends are left, and why, comes out.
package budget
