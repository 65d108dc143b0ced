// SPDX-License-Identifier: Apache-2.0

// Package selftest proves from inside a pod that its calls are redirected: a
// server that says who it is and who called, and a client that sends many
// requests over one kept-alive connection. kube-proxy chooses a backend for each
// connection, Envoy for each request: so more than one backend answers on one
// connection only where Envoy is in the path.
package selftest
