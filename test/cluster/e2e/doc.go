// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the end-to-end tests of the chart on a real Kubernetes: they
// bring the two-node cluster up themselves, once for each mode of kube-proxy,
// install nodevoy with helm as its users do, and watch what pods' calls, the
// nodes' kernels and the API server make of it. Nothing is left of the cluster
// when they end, however they end.
package e2e
