// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/nodevoy/nodevoy/agent/unixsocket"
)

// Server answers on a unix socket that only its owner may open.
type Server struct {
	socket string
	view   func(all bool) View
	health Health
	log    *zap.Logger
}

// NewServer makes a server for the socket's path. view is called for each
// request; all asks for every frontend, not just those in use.
func NewServer(socket string, view func(all bool) View, health Health, log *zap.Logger) *Server {
	return &Server{socket: socket, view: view, health: health, log: log}
}

// Run serves until ctx ends, on a socket that it makes anew should it vanish. A
// socket that can't be made at the start is an error.
func (s *Server) Run(ctx context.Context) error {
	ln, err := unixsocket.Listen(s.socket)
	if err != nil {
		return fmt.Errorf("listen for status requests: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", s.status)
	s.health.Register(mux)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		ln.Keep(ctx, s.log)
		return nil
	})
	g.Go(func() error { return Serve(ctx, ln, mux) })
	return g.Wait()
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(s.view(r.URL.Query().Has("all"))); err != nil {
		s.log.Debug("status not sent", zap.Error(err))
	}
}

// Serve runs an HTTP server on ln until ctx ends, then lets running requests
// finish for a moment. It returns nil when ctx ended.
func Serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", ln.Addr(), err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := srv.Shutdown(stop); err != nil {
			return srv.Close()
		}
		return nil
	})
	return g.Wait()
}
