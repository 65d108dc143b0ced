// SPDX-License-Identifier: Apache-2.0

// Package kube reads the agent's inputs from the API server: shared informers
// of the few kinds the model needs, narrowed by selectors on the server and
// trimmed to the fields the model reads before they are stored. It publishes
// nothing before every cache has synced; after that, any change says no more
// than "look again".
package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Config says which API server to read, and for which node.
type Config struct {
	// NodeName is the node's name; required.
	NodeName string
	// Kubeconfig is the path of a kubeconfig file; empty for the service
	// account of the pod the agent runs in. Not used when Client is set.
	Kubeconfig string
	// Client is the client to use; nil for one made from Kubeconfig.
	Client kubernetes.Interface
	// Now is the clock that dates Events; nil to write none.
	Now func() time.Time
}

// endPatience is how long Run waits, at its end, for informers.
const endPatience = 500 * time.Millisecond

// Source is the API server's objects, as far as this node needs them.
type Source struct {
	cfg      Config
	log      *zap.Logger
	watches  []*watch
	byKind   map[string]*watch
	recorder *recorder
	reach    *reach
	synced   atomic.Bool
	changed  chan struct{}
}

// watch is the informer of one kind.
type watch struct {
	kind     string
	informer cache.SharedIndexInformer
	handler  cache.ResourceEventHandlerRegistration
	failures atomic.Uint64
	lastErr  atomic.Pointer[error]
}

// New makes a source; it starts nothing. The error is about the configuration.
func New(cfg Config, log *zap.Logger) (*Source, error) {
	if cfg.NodeName == "" {
		return nil, errors.New("kube: the node's name is empty")
	}
	r := &reach{log: log}
	if cfg.Client == nil {
		client, err := newClient(cfg.Kubeconfig, r)
		if err != nil {
			return nil, err
		}
		cfg.Client = client
	}
	s := &Source{cfg: cfg, log: log, byKind: map[string]*watch{}, reach: r, changed: make(chan struct{}, 1)}
	if cfg.Now != nil {
		s.recorder = newRecorder(cfg, log)
	}
	for _, w := range newWatches(cfg.Client, cfg.NodeName) {
		if err := s.prepare(w); err != nil {
			return nil, fmt.Errorf("prepare watch of %s: %w", w.kind, err)
		}
		s.watches = append(s.watches, w)
		s.byKind[w.kind] = w
	}
	return s, nil
}

// prepare connects the informer to the source.
func (s *Source) prepare(w *watch) error {
	if err := w.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		s.watchFailed(w, err)
	}); err != nil {
		return err
	}
	handler, err := w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { s.look() },
		UpdateFunc: func(before, after any) {
			if !equal(before, after) {
				s.look()
			}
		},
		DeleteFunc: func(any) { s.look() },
	})
	w.handler = handler
	return err
}

// watchFailed notes a failure; client-go tries again by itself.
func (s *Source) watchFailed(w *watch, err error) {
	if errors.Is(err, io.EOF) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		s.log.Debug("watch ended, starting another", zap.String("kind", w.kind), zap.Error(err))
		return
	}
	w.failures.Add(1)
	w.lastErr.Store(&err)
	s.log.Warn("watch failed, trying again", zap.String("kind", w.kind), zap.Error(err))
}

// Run follows the API server until ctx ends; it may be called once. The API
// server being away is no error: client-go tries for ever, and what is known
// stays in force.
func (s *Source) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	var informers sync.WaitGroup
	checkers := make([]cache.DoneChecker, 0, len(s.watches))
	for _, w := range s.watches {
		// The handler's, not the cache's: what the first list brought is then
		// told already, and does not start a second round.
		checkers = append(checkers, w.handler.HasSyncedChecker())
		informers.Go(func() { w.informer.RunWithContext(ctx) })
	}
	group.Go(func() error {
		<-ctx.Done()
		awaitEnd(&informers)
		return nil
	})
	if s.recorder != nil {
		group.Go(func() error { return s.recorder.run(ctx) })
	}
	group.Go(func() error {
		if cache.WaitFor(ctx, "", checkers...) {
			s.synced.Store(true)
			s.look()
		}
		return nil
	})
	return group.Wait()
}

// awaitEnd waits for the informers, but not for one that is in the middle of a
// pause between two tries: client-go sleeps up to a minute without looking up.
func awaitEnd(informers *sync.WaitGroup) {
	ended := make(chan struct{})
	go func() {
		informers.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(endPatience):
	}
}

// look says that there is something new, once everything is there.
func (s *Source) look() {
	if !s.synced.Load() {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default: // a round is due already
	}
}

// Changed says "look again", first when every cache has synced.
func (s *Source) Changed() <-chan struct{} { return s.changed }

// Inputs are all the objects as they are now. They are shared with the caches,
// and must not be written to. Only whole after the first Changed.
func (s *Source) Inputs() model.Inputs {
	inputs := model.Inputs{
		NodeName:       s.cfg.NodeName,
		Namespaces:     stored[corev1.Namespace](s.byKind[kindNamespace]),
		Pods:           stored[corev1.Pod](s.byKind[kindPod]),
		Services:       stored[corev1.Service](s.byKind[kindService]),
		EndpointSlices: stored[discoveryv1.EndpointSlice](s.byKind[kindEndpointSlice]),
	}
	for _, node := range stored[corev1.Node](s.byKind[kindNode]) {
		if node.Name == s.cfg.NodeName {
			inputs.Node = node
		}
	}
	return inputs
}

// stored are the objects in the cache of one kind.
func stored[T any](w *watch) []*T {
	objects := w.informer.GetStore().List()
	typed := make([]*T, 0, len(objects))
	for _, object := range objects {
		if value, ok := object.(*T); ok {
			typed = append(typed, value)
		}
	}
	return typed
}

// Problems are that the API server can't be reached, and the kinds that could
// not be read yet: while there are any of these, Changed does not fire.
func (s *Source) Problems() []model.Problem {
	var problems []model.Problem
	if err := s.reach.why(); err != nil {
		problems = append(problems, model.Problem{Kind: "API server", Detail: "can't be reached: " + err.Error()})
	}
	for _, w := range s.watches {
		if err := w.lastErr.Load(); err != nil && !w.informer.HasSynced() {
			problems = append(problems, model.Problem{Kind: w.kind, Detail: (*err).Error()})
		}
	}
	return problems
}

// WatchFailures counts, by kind, the lists and watches that failed since the
// start. A watch that merely ended and was resumed is no failure.
func (s *Source) WatchFailures() map[string]uint64 {
	failures := make(map[string]uint64, len(s.watches))
	for _, w := range s.watches {
		failures[w.kind] = w.failures.Load()
	}
	return failures
}
