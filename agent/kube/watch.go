// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/nodevoy/nodevoy/agent/kinds"
)

// listOnlyFor is how long lists are not streamed after a stream that never said
// that the list is complete.
const listOnlyFor = time.Hour

// errEndedAtOnce is told of a watch that was accepted and ended.
var errEndedAtOnce = errors.New("the API server ends the watch at once, without an event")

// observedWatch passes a watch's events on.
type observedWatch struct {
	watch.Interface
	events  chan watch.Event
	stopped chan struct{}
	once    sync.Once
}

// ResultChan has the events.
func (w *observedWatch) ResultChan() <-chan watch.Event { return w.events }

// Stop ends the watch.
func (w *observedWatch) Stop() {
	w.once.Do(func() { close(w.stopped) })
	w.Interface.Stop()
}

// observe notes how the watch goes: it works when there is an event, or when it
// lasts. A streamed list that brings nothing more and is never said to be
// complete, as from an API server whose watch cache is stuck, is ended, and
// client-go lists in the ordinary way.
func (f *feed) observe(ctx context.Context, from watch.Interface, streamed bool) watch.Interface {
	w := &observedWatch{Interface: from, events: make(chan watch.Event), stopped: make(chan struct{})}
	go func() {
		defer close(w.events)
		defer from.Stop()
		overdue := time.AfterFunc(f.patience.watch, w.Stop)
		defer overdue.Stop()
		f.relay(ctx, w, streamed)
	}()
	return w
}

// relay passes events on until the watch ends.
func (f *feed) relay(ctx context.Context, w *observedWatch, streamed bool) {
	steady := time.NewTimer(f.patience.steady)
	defer steady.Stop()
	bookmark := time.NewTimer(f.patience.bookmark)
	defer bookmark.Stop()
	proven := false
	for {
		incomplete := bookmark.C
		if !streamed {
			incomplete = nil
		}
		var event watch.Event
		select {
		case <-w.stopped:
			return
		case <-steady.C:
			if proven = true; !streamed {
				f.note(ctx, opFollow, nil)
			}
			continue
		case <-incomplete:
			event = f.giveUpStream()
		case next, ok := <-w.Interface.ResultChan():
			if !ok {
				if !proven && !streamed {
					f.note(ctx, opFollow, errEndedAtOnce)
				}
				return
			}
			event = next
			switch {
			case event.Type == watch.Error:
				if !streamed {
					f.note(ctx, opFollow, apierrors.FromObject(event.Object))
				}
			case streamed && event.Type == watch.Added:
				bookmark.Reset(f.patience.bookmark)
			case streamed && completes(event):
				streamed = false
				f.note(ctx, opFollow, nil)
			case !streamed && !proven:
				f.note(ctx, opFollow, nil)
			}
			proven = true
		}
		select {
		case w.events <- event:
		case <-w.stopped:
			return
		}
	}
}

// completes says whether the event ends a streamed list.
func completes(event watch.Event) bool {
	o, ok := event.Object.(kinds.Object)
	return ok && event.Type == watch.Bookmark && o.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
}

// giveUpStream has lists not streamed for a while, beginning with this one.
func (f *feed) giveUpStream() watch.Event {
	f.log.Warn("API server does not end a streamed list, listing in the ordinary way", zap.String("kind", f.kind.Kind))
	f.update(func(s *status) { s.listOnlyUntil = f.now().Add(listOnlyFor) })
	return watch.Event{Type: watch.Error, Object: &metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusGatewayTimeout, Reason: metav1.StatusReasonTimeout,
		Message: errNotStreamed.Error(),
	}}
}
