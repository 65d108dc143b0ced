// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
)

// Config says which API server to read, and for which node.
type Config struct {
	// NodeName is the node's name; required.
	NodeName string
	// Kubeconfig is the path of a kubeconfig file; empty for the service
	// account of the pod the agent runs in. Not used when REST is set.
	Kubeconfig string
	// REST says how to reach the API server; nil to read it from Kubeconfig.
	REST *rest.Config
	// Kinds are those to read; nil for all in the table.
	Kinds []kinds.Kind
	// Now is the clock; required.
	Now func() time.Time
}

// Source is the API server's objects, as far as this node needs them.
type Source struct {
	cfg          Config
	log          *zap.Logger
	feeds        []*feed
	recorder     *recorder
	reachability *reachability
	synced       atomic.Bool
	changed      chan struct{}
}

// New makes a source; it starts nothing. The error is about the configuration.
func New(cfg Config, log *zap.Logger) (*Source, error) {
	if cfg.NodeName == "" {
		return nil, errors.New("kube: the node's name is empty")
	}
	if cfg.Kinds == nil {
		cfg.Kinds = kinds.All()
	}
	if cfg.REST == nil {
		var err error
		if cfg.REST, err = restConfig(cfg.Kubeconfig); err != nil {
			return nil, fmt.Errorf("configure Kubernetes client: %w", err)
		}
	}
	scheme := kinds.Scheme(cfg.Kinds)
	scheme.AddKnownTypes(eventsv1.SchemeGroupVersion, &eventsv1.Event{})
	metav1.AddToGroupVersion(scheme, eventsv1.SchemeGroupVersion)
	s := &Source{cfg: cfg, log: log, reachability: &reachability{log: log, answer: answerPatience}, changed: make(chan struct{}, 1)}
	clients, err := newClients(cfg.REST, scheme, s.reachability)
	if err != nil {
		return nil, fmt.Errorf("configure Kubernetes client: %w", err)
	}
	events, err := clients.of(eventsv1.SchemeGroupVersion)
	if err != nil {
		return nil, fmt.Errorf("make client of Events: %w", err)
	}
	s.recorder = newRecorder(cfg, events, log)
	return s, s.addFeeds(clients, runtime.NewParameterCodec(scheme))
}

// addFeeds makes the feed of each kind.
func (s *Source) addFeeds(clients *clients, params runtime.ParameterCodec) error {
	interned := kinds.NewInterner()
	for _, kind := range s.cfg.Kinds {
		client, err := clients.of(kind.GroupVersion())
		if err != nil {
			return fmt.Errorf("make client of kind %s: %w", kind.Kind, err)
		}
		s.feeds = append(s.feeds, &feed{
			store: newStore(kind, s.cfg.NodeName, interned, s.notify), client: client, params: params,
			selector: kind.Select(s.cfg.NodeName), patience: defaultPatience(), now: s.cfg.Now, log: s.log,
		})
	}
	return nil
}

// Run follows the API server until ctx ends; it may be called once. The API
// server being away is no error: it is tried for ever, and what is known stays
// in force.
func (s *Source) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, f := range s.feeds {
		group.Go(func() error {
			f.run(ctx)
			return nil
		})
	}
	group.Go(func() error { return s.recorder.run(ctx, s.regarding) })
	group.Go(func() error {
		for _, f := range s.feeds {
			select {
			case <-f.replaced:
			case <-ctx.Done():
				return nil
			}
		}
		s.synced.Store(true)
		s.notify()
		return nil
	})
	return group.Wait()
}

// notify says that there is something new, once everything is there.
func (s *Source) notify() {
	if !s.synced.Load() {
		return
	}
	select {
	case s.changed <- struct{}{}:
	default: // a round is due already
	}
}

// Changed says "look again", first when every kind has been read.
func (s *Source) Changed() <-chan struct{} { return s.changed }

// Inputs are all the objects as they are now. They are shared and must not be
// written to; one that has not changed for the model is the same pointer as
// before. Only whole after the first Changed.
func (s *Source) Inputs() model.Inputs {
	inputs := model.Inputs{NodeName: s.cfg.NodeName}
	for _, f := range s.feeds {
		f.addTo(&inputs)
	}
	return inputs
}

// Health is how the reading of each kind goes.
func (s *Source) Health() []kinds.Health {
	all := make([]kinds.Health, len(s.feeds))
	for i, f := range s.feeds {
		all[i] = f.health()
	}
	return all
}

// Problems are that the API server can't be reached, and the kinds that can't
// be read or followed now. Until every kind has been read, Changed does not
// fire; after that, what was read stays in force.
func (s *Source) Problems() []model.Problem {
	var problems []model.Problem
	unreachable := s.reachability.problem()
	if unreachable != nil {
		problems = append(problems, model.Problem{Kind: "API server", Detail: "can't be reached: " + unreachable.Error()})
	}
	for _, h := range s.Health() {
		if h.Err == nil {
			continue
		}
		// Of a server that can't be reached, the same need not be said five times.
		if unreachable != nil && !answered(h.Err) {
			continue
		}
		what := "can't be read since "
		if h.Synced {
			what = "can't be followed, what is known stays in force; since "
		}
		problems = append(problems, model.Problem{
			Kind: h.Kind, Detail: what + h.Since.UTC().Format(time.RFC3339) + ": " + h.Err.Error(),
		})
	}
	return problems
}
