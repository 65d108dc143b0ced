// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"fmt"
	"net/http"

	"github.com/nodevoy/nodevoy/agent/healthcheck"
)

// Health says what is wrong: each function returns why its check fails, or
// nothing if it passes.
type Health struct {
	// Live fails when a restart of the agent would help, Ready when this node
	// doesn't do its work.
	Live, Ready func() string
}

// Register adds both checks to mux. They answer with 200, or with 503 and the
// reason.
func (h Health) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+healthcheck.LivePath, check(h.Live))
	mux.HandleFunc("GET "+healthcheck.ReadyPath, check(h.Ready))
}

// check serves one of them, as text: probes show it to people.
func check(problem func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if why := problem(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok") // Fails when the client has gone.
	}
}
