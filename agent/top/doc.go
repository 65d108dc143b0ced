// SPDX-License-Identifier: Apache-2.0

// Package top ranks Services by what their callers see of them: requests in a second,
// share of errors, latency. It is pure: two samples of an agent's metrics go in, which
// cost nothing to have, and rows come out. Samples of several nodes are added up.
package top
