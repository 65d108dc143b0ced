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
	for path, check := range map[string]func() string{healthcheck.LivePath: h.Live, healthcheck.ReadyPath: h.Ready} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			if problem := check(); problem != "" {
				http.Error(w, problem, http.StatusServiceUnavailable)
				return
			}
			_, _ = fmt.Fprintln(w, "ok") // Fails when the client has gone.
		})
	}
}
