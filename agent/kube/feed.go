// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/nodevoy/nodevoy/agent/kinds"
)

// listOnlyFor is how long lists are not streamed after a stream that never said
// that the list is complete.
const listOnlyFor = time.Hour

// errNotStreamed makes client-go list in the ordinary way.
var errNotStreamed = errors.New("lists are not streamed: the API server did not end the last one")

// feed reads one kind: a reflector of client-go, which lists, watches and
// resumes, over requests whose outcome is noted.
type feed struct {
	*store
	status status
	client rest.Interface
	// params encodes the options of requests, selector narrows them.
	params   runtime.ParameterCodec
	selector kinds.Selector
	patience patience
	now      func() time.Time
	log      *zap.Logger
}

// run reads and follows the kind until ctx ends.
func (f *feed) run(ctx context.Context) {
	f.status.start(f.now())
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
	if err := f.absentErr(); err != nil {
		return nil, err
	}
	list := f.kind.NewList()
	err := f.get(&options).Do(ctx).Into(list)
	f.note(ctx, opList, err)
	return list, err
}

// watch asks for changes, after a stream of all objects if the options say so.
func (f *feed) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	if err := f.absentErr(); err != nil {
		return nil, err
	}
	streamed := options.SendInitialEvents != nil && *options.SendInitialEvents
	if streamed && f.status.listOnly(f.now()) {
		return nil, errNotStreamed
	}
	options.Watch = true
	w, err := f.get(&options).Watch(ctx)
	switch {
	case err != nil && streamed:
		// An ordinary list follows, and says what is wrong. Without its type the
		// error is not one after which client-go sleeps, deaf to ctx.
		return nil, fmt.Errorf("stream list: %v", err) //nolint:errorlint // see above
	case err != nil:
		f.note(ctx, opWatch, err)
		return nil, err
	}
	f.note(ctx, opWatch, nil)
	return f.observe(ctx, w, streamed), nil
}

func (f *feed) get(options *metav1.ListOptions) *rest.Request {
	options.LabelSelector, options.FieldSelector = f.selector.Labels, f.selector.Fields
	return f.client.Get().Resource(f.kind.Resource).VersionedParams(options, f.params)
}

// note records the outcome of a request.
func (f *feed) note(ctx context.Context, op operation, err error) {
	switch {
	case ctx.Err() != nil:
	case err == nil:
		if f.status.succeeded(op) {
			f.log.Info("kind is read again", zap.String("kind", f.kind.Kind))
		}
	case apierrors.IsResourceExpired(err), apierrors.IsGone(err):
		// Too much has changed since; client-go lists again.
	case f.kind.Optional && apierrors.IsNotFound(err):
		f.absent(err)
	default:
		news := f.status.failed(op, err, f.now())
		// That the server can't be reached is logged once for all kinds.
		if news && answered(err) {
			f.log.Warn("kind can't be read, trying again, what is known stays in force",
				zap.String("kind", f.kind.Kind), zap.Stringer("operation", op), zap.Error(err))
		}
	}
}

// answered says whether the error is the API server's own.
func answered(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status)
}

// absent notes that the API server does not serve the kind: there is no object
// of it, and nothing to wait for.
func (f *feed) absent(err error) {
	if f.status.setAbsent(err, f.now().Add(f.patience.absent)) {
		f.log.Info("kind is not served by the API server, asking again now and then", zap.String("kind", f.kind.Kind))
	}
	// Only Replace of nothing removes what was there before.
	_ = f.Replace(nil, "")
}

// absentErr is the last answer about a kind that is not served, while it is too
// early to ask again.
func (f *feed) absentErr() error { return f.status.absentErr(f.now()) }

// health is how the reading of the kind goes.
func (f *feed) health() kinds.Health {
	h := f.status.health(f.now(), f.synced(), f.patience.list)
	h.Kind = f.kind.Kind
	return h
}
