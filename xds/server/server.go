// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/unixsocket"
	"github.com/nodevoy/nodevoy/xds"
)

const (
	// idlePing and pingPatience bound how long a stream to an Envoy that hangs
	// is believed in. Envoy answers pings on its main thread.
	idlePing, pingPatience = 5 * time.Second, 5 * time.Second
	// stopGrace is how long streams may take to end when the server stops.
	stopGrace = time.Second
	// maxRequest is the size of a request in bytes: a reconnecting Envoy names
	// every cluster it holds, with its version.
	maxRequest = 64 << 20
)

// Server serves this node's Envoy over delta ADS, what is published and
// nothing before that. All methods may be called at any time from anywhere.
type Server struct {
	cfg          xds.Config
	log          *zap.Logger
	now          func() time.Time
	onDisconnect func()
	override     func(name string, m proto.Message)
	translate    func(node *model.Node, targets []model.PodTarget, before *xds.ListenerSpecs) translation
	changed      chan struct{}
	// ready is closed by the first Publish.
	ready chan struct{}

	mu           sync.Mutex
	current      *snapshot
	publications int
	sessions     map[*session]struct{}
	counts       [xds.KindCount]counts
	nackCount    int
	// nacks are the last of them. The slice is never written to again.
	nacks []Nack
	// refused is what all sessions refuse, nil when that must be found anew.
	refused *Refused
	// inUse counts, for each frontend, the clusters that the sessions hold.
	inUse map[netip.AddrPort]int
}

type counts struct{ responses, acks, nacks int }

// Option changes a Server as it is made.
type Option func(*Server)

// OnDisconnect has f called, synchronously, each time the last ADS stream ends
// while the server goes on: there is no Envoy any more. A server that is told
// to stop does not call it, as Envoy goes on without it.
func OnDisconnect(f func()) Option { return func(s *Server) { s.onDisconnect = f } }

// Override has f called on each resource before it is versioned and sent, so
// that a test can send what package xds would not make. Resources are
// then made anew at each Publish.
func Override(f func(name string, m proto.Message)) Option {
	return func(s *Server) { s.override = f }
}

// New makes a server; Run starts it. The error says what is wrong with
// the configuration.
func New(cfg xds.Config, log *zap.Logger, opts ...Option) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("xds configuration: %w", err)
	}
	s := &Server{
		cfg: cfg, log: log,
		now:          time.Now, //nolint:forbidigo // the edge: when streams open and responses leave
		onDisconnect: func() {},
		changed:      make(chan struct{}, 1),
		ready:        make(chan struct{}),
		sessions:     map[*session]struct{}{},
		inUse:        map[netip.AddrPort]int{},
		translate: func(node *model.Node, targets []model.PodTarget, before *xds.ListenerSpecs) translation {
			return xds.NewTranslation(cfg, node, targets, before)
		},
	}
	for _, opt := range opts {
		opt(s)
	}
	return s, nil
}

// Publish makes node what is served, and in pod mode the pods in which Envoy is
// to listen; targets are not used in host mode. What changed of the resources in use
// is on its way to Envoy when Publish returns; it waits for nobody.
func (s *Server) Publish(node *model.Node, targets []model.PodTarget) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.current == nil
	var listeners *xds.ListenerSpecs
	if !first {
		listeners = s.current.Listeners()
	}
	s.current = newSnapshot(s.cfg, s.translate(node, targets, listeners), s.current)
	s.current.override = s.override
	s.publications++
	for sess := range s.sessions {
		sess.answersChanged()
		sess.push()
	}
	// Let go of the node before this one.
	s.current.before = nil
	if first {
		close(s.ready)
	}
}

// Changed says "look at Status again": an Envoy connected, went, accepted or
// refused something.
func (s *Server) Changed() <-chan struct{} { return s.changed }

func (s *Server) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Run serves until ctx ends, and then returns nil once all streams are closed.
// The socket appears with the first Publish, not before: an Envoy that
// reconnects to a server that knows less than the last one would drop what it
// holds. A socket that can't be made is an error.
func (s *Server) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.ready:
	}
	listener, err := unixsocket.Listen(s.cfg.Socket)
	if err != nil {
		return fmt.Errorf("serve xds: %w", err)
	}
	s.log.Info("xds socket open", zap.String("path", s.cfg.Socket))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var kept sync.WaitGroup
	kept.Go(func() { listener.Keep(ctx, s.log) })
	kept.Go(func() { s.retry(ctx) })
	err = s.serve(ctx, listener)
	cancel()
	kept.Wait()
	return errors.Join(err, listener.Close())
}

// retryInterval is how often the server looks for refused resources to send
// again.
const retryInterval = time.Second

// retry sends refused resources again, each when it is time, until ctx ends.
func (s *Server) retry(ctx context.Context) {
	tick := time.NewTicker(retryInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.resendRefused()
		}
	}
}

func (s *Server) resendRefused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sess := range s.sessions {
		sess.resendRefused(s.now())
		sess.push()
	}
}

func (s *Server) serve(ctx context.Context, listener net.Listener) error {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: idlePing, Timeout: pingPatience}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, &service{server: s, ctx: ctx})
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve xds: %w", err)
	case <-ctx.Done():
	}
	// The streams end by ctx; a client that does not let go is cut off.
	force := time.AfterFunc(stopGrace, server.Stop)
	defer force.Stop()
	server.GracefulStop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve xds: %w", err)
	}
	return nil
}

// service is what the server is to gRPC, which starts the streams: ctx ends them.
type service struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	server *Server
	ctx    context.Context
}

// DeltaAggregatedResources serves one stream: one Envoy.
func (s *service) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	sess := s.server.open()
	defer func() { s.server.close(sess, s.ctx.Err() != nil) }()
	handler := delta.NewServer(s.ctx, sess, sess,
		delta.WithLogger(s.server.log.Sugar()),
		// Only listeners are wanted without being named.
		delta.DeactivateLegacyWildcardForTypes([]string{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.RouteType}),
	)
	return handler.DeltaStreamHandler(stream, resourcev3.AnyType)
}

func (s *Server) open() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	sess := &session{server: s, since: s.now(), pending: map[string]response{}}
	s.sessions[sess] = struct{}{}
	s.log.Info("envoy connected", zap.Int("streams", len(s.sessions)))
	s.notify()
	return sess
}

// close forgets a session. stopping is set when it ended because the server is
// told to stop.
func (s *Server) close(sess *session, stopping bool) {
	s.mu.Lock()
	delete(s.sessions, sess)
	for name := range sess.subs[xds.KindCluster].sent {
		sess.forget(xds.KindCluster, name)
	}
	s.refused = nil
	left := len(s.sessions)
	s.mu.Unlock()
	s.log.Info("envoy disconnected", zap.Int("streams", left))
	if left == 0 && !stopping {
		s.onDisconnect()
	}
	s.notify()
}
