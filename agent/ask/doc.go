// SPDX-License-Identifier: Apache-2.0

// Package ask asks agents, by HTTP over whatever leads to them: a unix socket on the same
// node, or a program in a pod elsewhere. Several are asked at once, and each has one of
// three outcomes: it answered, none runs on the node, or it did not answer.
package ask
