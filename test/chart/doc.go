// SPDX-License-Identifier: Apache-2.0

// Package chart tests charts/nodevoy without a cluster: what it renders for
// several sets of values, what it refuses and with which words, that Kubernetes'
// own schemas take every object, that each flag exists in the binary with the
// default the chart says, and what the containers may do.
//
// It needs helm, at $HELM or in $NODEVOY_ASSETS, and the agent at $NODEVOY_BIN;
// `make chart-test` sets all of them. `-update` rewrites the goldens and the table
// of values in the chart's README.
package chart
