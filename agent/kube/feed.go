// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/nodevoy/nodevoy/agent/kinds"
)

// operation is what is done to read a kind.
type operation string

// The operations. Only a watch that goes on proves that watching works again.
const (
	opList   operation = "list"
	opWatch  operation = "watch"
	opFollow operation = "follow"
)

// proves says whether the success of one operation ends the failure of another.
func (o operation) proves(failed operation) bool {
	return o == failed || o == opFollow || failed == opList
}

// patience is how long things may take. Tests shorten it.
type patience struct {
	// retry is the back-off between two attempts to read a kind.
	retry wait.Backoff
	// list is how long a kind may take to be read before that is a fault.
	list time.Duration
	// bookmark is how long a streamed list may bring nothing new and yet not
	// say that it is complete.
	bookmark time.Duration
	// steady is how long a watch must last to prove, without an event, that it
	// works.
	steady time.Duration
	// watch is how long a watch may last. client-go asks the API server to end it
	// within ten minutes, and waits for ever if the API server doesn't.
	watch time.Duration
	// absent is how often an optional kind that is not served is asked for.
	absent time.Duration
}

func defaultPatience() patience {
	return patience{
		// As client-go's own.
		retry: wait.Backoff{Duration: 800 * time.Millisecond, Cap: 30 * time.Second, Steps: 10, Factor: 2, Jitter: 1},
		list:  30 * time.Second, bookmark: 20 * time.Second, steady: 5 * time.Second, watch: 12 * time.Minute,
		// With the back-off, a kind that appears is read within two minutes.
		absent: time.Minute,
	}
}

var (
	// errNoList is told of a list that neither arrives nor fails.
	errNoList = errors.New("the API server has not sent the whole list")
	// errNotStreamed makes client-go list in the ordinary way.
	errNotStreamed = errors.New("lists are not streamed: the API server did not end the last one")
)

// feed reads one kind: a reflector of client-go, which lists, watches and
// resumes, over requests whose outcome is noted.
type feed struct {
	*store
	client rest.Interface
	// params encodes the options of requests, selector narrows them.
	params   runtime.ParameterCodec
	selector kinds.Selector
	patience patience
	now      func() time.Time
	log      *zap.Logger

	statusMu sync.Mutex
	status   status
}

// status is how the reading of a kind goes.
type status struct {
	// started is when reading began, listing when the list under way was asked for,
	// zero while there is none.
	started, listing time.Time
	// err is the last failure since reading last worked, of the operation op,
	// and since when the first one was.
	err   error
	op    operation
	since time.Time
	// notServed is the answer about an optional kind that is not served, askAt
	// when to ask again.
	notServed error
	askAt     time.Time
	// listOnlyUntil is when lists may be streamed again.
	listOnlyUntil time.Time
}

// update changes the status, and returns what it was and what it is.
func (f *feed) update(change func(*status)) (before, after status) {
	f.statusMu.Lock()
	defer f.statusMu.Unlock()
	before = f.status
	change(&f.status)
	return before, f.status
}

// run reads and follows the kind until ctx ends.
func (f *feed) run(ctx context.Context) {
	f.update(func(s *status) { s.started = f.now() })
	reflector := cache.NewReflectorWithOptions(
		&cache.ListWatch{ListWithContextFunc: f.list, WatchFuncWithContext: f.watch}, f.kind.New(), f.store,
		cache.ReflectorOptions{Name: f.kind.Kind, Backoff: &f.patience.retry})
	pause := f.patience.retry.DelayFunc()
	for ctx.Err() == nil {
		began := f.now()
		// The error has been noted where it came from.
		_ = reflector.ListAndWatchWithContext(ctx)
		if f.now().Sub(began) > f.patience.retry.Cap {
			pause = f.patience.retry.DelayFunc()
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause()):
		}
	}
}

// list asks for all objects.
func (f *feed) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	if err := f.tooEarly(false); err != nil {
		return nil, err
	}
	f.update(func(s *status) { s.listing = f.now() })
	list := f.kind.NewList()
	err := f.get(&options).Do(ctx).Into(list)
	f.update(func(s *status) { s.listing = time.Time{} })
	f.note(ctx, opList, err)
	return list, err
}

// watch asks for changes, after a stream of all objects if the options say so.
func (f *feed) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	streamed := options.SendInitialEvents != nil && *options.SendInitialEvents
	if err := f.tooEarly(streamed); err != nil {
		return nil, err
	}
	options.Watch = true
	w, err := f.get(&options).Watch(ctx)
	if err != nil && streamed {
		// An ordinary list follows, and says what is wrong. Without its type the
		// error is not one after which client-go sleeps, deaf to ctx.
		return nil, fmt.Errorf("stream list: %v", err) //nolint:errorlint // see above
	}
	f.note(ctx, opWatch, err)
	if err != nil {
		return nil, err
	}
	return f.observe(ctx, w, streamed), nil
}

// tooEarly is why a request is not made yet: the last answer about a kind that is
// not served, or about a streamed list.
func (f *feed) tooEarly(streamed bool) error {
	f.statusMu.Lock()
	defer f.statusMu.Unlock()
	switch s, now := &f.status, f.now(); {
	case s.notServed != nil && now.Before(s.askAt):
		return s.notServed
	case streamed && now.Before(s.listOnlyUntil):
		return errNotStreamed
	}
	return nil
}

func (f *feed) get(options *metav1.ListOptions) *rest.Request {
	options.LabelSelector, options.FieldSelector = f.selector.Labels, f.selector.Fields
	return f.client.Get().Resource(f.kind.Resource).VersionedParams(options, f.params)
}

// note records the outcome of a request, and logs it when that is news.
func (f *feed) note(ctx context.Context, op operation, err error) {
	kind, now := zap.String("kind", f.kind.Kind), f.now()
	switch {
	case ctx.Err() != nil, apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		// Ended by us, or too much has changed since: client-go lists again.
	case err == nil:
		before, after := f.update(func(s *status) {
			s.notServed = nil
			if op.proves(s.op) {
				s.err, s.since = nil, time.Time{}
			}
		})
		if before.err != nil && after.err == nil {
			f.log.Info("kind is read again", kind)
		}
	case f.kind.Optional && apierrors.IsNotFound(err):
		before, _ := f.update(func(s *status) {
			s.notServed, s.askAt = err, now.Add(f.patience.absent)
			s.err, s.since = nil, time.Time{}
		})
		if before.notServed == nil {
			f.log.Info("kind is not served by the API server, asking again now and then", kind)
		}
		// There is no object of it, and nothing to wait for. Replace by nothing can't fail.
		_ = f.Replace(nil, "")
	default:
		before, _ := f.update(func(s *status) {
			if s.err == nil {
				s.since = now
			}
			s.err, s.op, s.notServed = err, op, nil
		})
		// That the server can't be reached is logged once for all kinds.
		if (before.err == nil || before.err.Error() != err.Error()) && (answered(err) || errors.Is(err, errNoAnswer)) {
			f.log.Warn("kind can't be read, trying again, what is known stays in force",
				kind, zap.String("operation", string(op)), zap.Error(err))
		}
	}
}

// answered says whether the error is the API server's own.
func answered(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}

// health is how the reading of the kind goes; one that takes too long is failing.
func (f *feed) health() kinds.Health {
	f.statusMu.Lock()
	defer f.statusMu.Unlock()
	s := &f.status
	h := kinds.Health{Kind: f.kind.Kind, Synced: f.synced(), Absent: s.notServed != nil, Err: s.err, Since: s.since}
	waiting := s.listing
	if !h.Synced {
		waiting = s.started
	}
	if s.err == nil && !waiting.IsZero() && f.now().Sub(waiting) >= f.patience.list {
		h.Err, h.Since = errNoList, waiting
	}
	return h
}
