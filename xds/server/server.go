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

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/unixsocket"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/flows"
)

const (
	// pingInterval and pingTimeout bound how long the stream of an Envoy that
	// hangs stays open. Envoy answers pings on its main thread.
	pingInterval, pingTimeout = 5 * time.Second, 5 * time.Second
	// stopGrace is how long streams may take to end when the server stops.
	stopGrace = time.Second
	// maxRequest is the size of a request in bytes: a reconnecting Envoy names
	// every cluster it holds, with its version.
	maxRequest = 64 << 20
	// retryInterval is how often the server checks whether it is time to send a
	// refused resource again.
	retryInterval = time.Second
)

// Server serves this node's Envoy, over delta ADS, what was published last. All
// methods may be called at any time and concurrently.
type Server struct {
	cfg          xds.Config
	log          *zap.Logger
	now          func() time.Time
	onDisconnect func()
	decoder      flows.Decoder
	onFlows      func([]flow.Flow)
	override     func(name string, m proto.Message)
	translate    func(node *model.Node, targets []model.PodTarget, before *xds.ListenerSpecs) translation
	changed      chan struct{}
	// ready is closed by the first Publish.
	ready chan struct{}

	mu           sync.Mutex
	current      *snapshot
	publications int
	runtime      xds.FlowShares
	sessions     map[*session]struct{}
	kinds        [xds.KindCount]KindStatus
	// nacks are the last of them. The slice is never written to again.
	nacks []Nack
	// refused is what all sessions refuse; nil when it must be recomputed.
	refused *Refused
	// uses are the frontends of which the sessions hold clusters.
	uses uses
	// denied are those that there was no memory for, since the last publication.
	denied map[netip.AddrPort]struct{}
	// demands counts them.
	demands uint64
}

// Option changes a Server as it is made.
type Option func(*Server)

// OnDisconnect has f called, synchronously, each time the last ADS stream ends:
// there is no Envoy any more. A server that stops doesn't call it, as Envoy goes
// on without the server.
func OnDisconnect(f func()) Option { return func(s *Server) { s.onDisconnect = f } }

// OnFlows has f called with what Envoy sends because of SendFlows, from several
// goroutines.
func OnFlows(d flows.Decoder, f func([]flow.Flow)) Option {
	return func(s *Server) { s.decoder, s.onFlows = d, f }
}

// Override has f called on each resource before it is versioned and sent, so that
// a test can send what package xds would not make. Every Publish then makes all
// resources again.
func Override(f func(name string, m proto.Message)) Option { return func(s *Server) { s.override = f } }

// New makes a server; Run starts it. The error is that of cfg.Validate.
func New(cfg xds.Config, log *zap.Logger, opts ...Option) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("xds configuration: %w", err)
	}
	s := &Server{
		cfg: cfg, log: log,
		now:          time.Now, //nolint:forbidigo // the edge: when streams open and responses leave
		onDisconnect: func() {},
		onFlows:      func([]flow.Flow) {},
		changed:      make(chan struct{}, 1),
		ready:        make(chan struct{}),
		sessions:     map[*session]struct{}{},
		uses:         newUses(),
		translate: func(node *model.Node, targets []model.PodTarget, before *xds.ListenerSpecs) translation {
			return xds.NewTranslation(cfg, node, targets, before)
		},
	}
	for _, opt := range opts {
		opt(s)
	}
	return s, nil
}

// Publish makes node what is served and, in pod mode, targets the pods in which
// Envoy listens. When it returns, the changes of resources in use are queued for
// Envoy; it doesn't wait for them to be sent.
func (s *Server) Publish(node *model.Node, targets []model.PodTarget) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var listeners *xds.ListenerSpecs
	var made resources
	if s.publications > 0 {
		listeners, made = s.current.Listeners(), s.current.made
	}
	s.current = newSnapshot(s.cfg, s.translate(node, targets, listeners), made)
	s.current.override, s.current.runtime = s.override, s.runtime
	s.publications++
	s.denied = nil
	s.uses.refresh(s.frontend)
	for sess := range s.sessions {
		sess.answersChanged()
		sess.push()
	}
	s.current.before = resources{} // They refer to the node before this one.
	if s.publications == 1 {
		close(s.ready)
	}
}

// SendFlows says which share of flows Envoy sends to the function of option OnFlows.
func (s *Server) SendFlows(shares xds.FlowShares) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runtime == shares {
		return
	}
	s.runtime = shares
	if s.current == nil {
		return
	}
	s.current.runtime = shares
	delete(s.current.made[xds.KindRuntime], xds.RuntimeName)
	for sess := range s.sessions {
		t := &sess.subs[xds.KindRuntime]
		if _, wanted := t.names[xds.RuntimeName]; wanted {
			// Nothing that is to be in force waits for it.
			t.due[xds.RuntimeName] = s.demand(true)
			sess.push()
		}
	}
}

// Changed receives when Status may have changed: an Envoy connected,
// disconnected, accepted or refused something.
func (s *Server) Changed() <-chan struct{} { return s.changed }

// demand is the next one.
func (s *Server) demand(asked bool) demand {
	s.demands++
	return demand{number: s.demands, asked: asked}
}

func (s *Server) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Run serves until ctx ends, and then returns nil once all streams are closed.
// The socket is made after the first Publish: an Envoy that reconnected earlier
// would be told to drop its resources. A socket that can't be made is an error.
func (s *Server) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.ready:
	}
	listener, err := unixsocket.ListenFor(s.cfg.Socket, s.cfg.Group)
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

// retry sends refused resources again, each when it is time, until ctx ends.
func (s *Server) retry(ctx context.Context) {
	wait.UntilWithContext(ctx, func(context.Context) { s.resendRefused() }, retryInterval)
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
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingInterval, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, &service{server: s, ctx: ctx})
	accesslogv3.RegisterAccessLogServiceServer(server, &flowService{server: s})
	// ctx ends the streams; a client that keeps its connection is disconnected.
	defer context.AfterFunc(ctx, func() {
		defer time.AfterFunc(stopGrace, server.Stop).Stop()
		server.GracefulStop()
	})()
	if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve xds: %w", err)
	}
	return nil
}

// service is the server's gRPC service; ctx ends its streams.
type service struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	server *Server
	ctx    context.Context
}

// DeltaAggregatedResources serves one stream, which is one Envoy's.
func (s *service) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	sess := s.server.open()
	defer func() { s.server.close(sess, s.ctx.Err() != nil) }()
	// Only listeners are requested without their names.
	named := []string{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.RouteType, resourcev3.RuntimeType}
	handler := delta.NewServer(s.ctx, sess, sess,
		delta.WithLogger(s.server.log.Sugar()), delta.DeactivateLegacyWildcardForTypes(named))
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

// close removes a session. stopping is set if it ended because the server stops.
func (s *Server) close(sess *session, stopping bool) {
	s.mu.Lock()
	delete(s.sessions, sess)
	for name := range sess.subs[xds.KindCluster].sent {
		sess.forget(xds.KindCluster, name)
	}
	s.refused = nil
	if len(s.sessions) == 0 {
		s.denied = nil
	}
	left := len(s.sessions)
	s.mu.Unlock()
	s.log.Info("envoy disconnected", zap.Int("streams", left))
	if left == 0 && !stopping {
		s.onDisconnect()
	}
	s.notify()
}
