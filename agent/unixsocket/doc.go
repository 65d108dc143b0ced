// SPDX-License-Identifier: Apache-2.0

// Package unixsocket listens on unix sockets that only their owner may open. It
// replaces a socket that a killed process left, never one that is served, and
// makes its own anew when something removes it. It has the HTTP client for them, too.
package unixsocket
