// SPDX-License-Identifier: Apache-2.0

package selftest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// answer is what the server says to every request.
type answer struct {
	// Backend is the name of the server: its pod's.
	Backend string `json:"backend"`
	// Peer is the address the request came from, without the port.
	Peer string `json:"peer"`
}

// Handler answers every request with the backend's name and the caller's address.
func Handler(backend string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer{Backend: backend, Peer: peer}) // Fails when the client has gone.
	})
}

// Serve answers on the listener until ctx ends, and closes it.
func Serve(ctx context.Context, ln net.Listener, backend string) error {
	server := &http.Server{Handler: Handler(backend), ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // Serve returns what matters.
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the self-test: %w", err)
	}
	return nil
}
