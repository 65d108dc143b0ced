// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/nodevoy/nodevoy/agent/unixsocket"
)

// maxConnections is how many connections a loopback listener has at a time: everybody on
// the node may open some.
const maxConnections = 64

// Server is the debug endpoint.
type Server struct {
	source Source
	pprof  bool
	now    func() time.Time
	log    *zap.Logger
}

// NewServer makes the endpoint. pprof adds the Go runtime's profiles to the unix socket.
func NewServer(source Source, pprof bool, now func() time.Time, log *zap.Logger) *Server {
	return &Server{source: source, pprof: pprof, now: now, log: log}
}

// RunUnix serves on a unix socket that only its owner may open until ctx ends, and makes
// it anew should it vanish. A socket that can't be made at the start is an error.
func (s *Server) RunUnix(ctx context.Context, socket string) error {
	ln, err := unixsocket.Listen(socket)
	if err != nil {
		return fmt.Errorf("listen for debug requests: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		ln.Keep(ctx, s.log)
		return nil
	})
	g.Go(func() error { return Serve(ctx, ln, s.front(true).handler()) })
	return g.Wait()
}

// RunLoopback serves what is harmless on a listener that everybody on the node reaches,
// until ctx ends.
func (s *Server) RunLoopback(ctx context.Context, ln net.Listener) error {
	return Serve(ctx, netutil.LimitListener(ln, maxConnections), s.front(false).handler())
}

// front is the endpoint on one listener.
type front struct {
	*Server
	// private is set on the unix socket.
	private                    bool
	requests, heavy, followers slots
}

func (s *Server) front(private bool) *front {
	return &front{
		Server: s, private: private,
		requests: make(slots, maxRequests), heavy: make(slots, maxHeavy), followers: make(slots, maxFollowers),
	}
}

// Serve runs an HTTP server on ln until ctx ends, then lets running requests
// finish for a moment; those that last end with ctx. It returns nil when ctx ended.
func Serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	// No ReadTimeout: when it is over, the context of a request that still runs ends.
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
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
