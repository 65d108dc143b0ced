// SPDX-License-Identifier: Apache-2.0

// Package advise says what enrolling pods would change: a node's view, the connections
// that its pods have open past Envoy and the last flows in, an Advice out. It is pure.
package advise
