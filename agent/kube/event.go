// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/nodevoy/nodevoy/agent/kinds"
)

// Warning is what a Kubernetes Event of that type says about a user's object.
type Warning struct {
	// Kind is one of the kinds that are read; Namespace is empty for objects
	// that are in none.
	Kind, Namespace, Name string
	// Reason is one CamelCase word, Note a sentence.
	Reason, Note string
}

const (
	// maxWarnings is how many Events are kept up at a time: they are news for
	// people, and nothing depends on them.
	maxWarnings = 1024
	// renewInterval is how often an Event is renewed while its warning lasts:
	// API servers delete an Event that has not changed for an hour.
	renewInterval = 30 * time.Minute
	// checkInterval is how often is looked for Events that are due.
	checkInterval = time.Minute
	// writeTimeout bounds one request.
	writeTimeout = 10 * time.Second
	// maxNote is what the API allows for a note, in bytes.
	maxNote = 1024
	// controller is who reports.
	controller = "nodevoy.io/agent"
)

// Warn makes these the warnings that there are: each has an Event, of its
// object and of type Warning, for as long as it is among them; the Event of one
// that no longer is expires by itself. It does not block and does not fail.
// Without the right to create Events it does nothing. Every node has an agent,
// and all that see the same fault share one Event.
func (s *Source) Warn(warnings []Warning) { s.recorder.set(warnings) }

// uid is the object's, from what was read; kubectl describe wants it.
func (s *Source) uid(w Warning) (kinds.Kind, types.UID) {
	for _, f := range s.feeds {
		if f.kind.Kind == w.Kind {
			return f.kind, f.uid(types.NamespacedName{Namespace: w.Namespace, Name: w.Name})
		}
	}
	return kinds.Kind{}, ""
}

// recorder keeps up the Events of the present warnings.
type recorder struct {
	node   string
	client rest.Interface
	now    func() time.Time
	log    *zap.Logger
	// warnings has the latest list, if run has not taken it yet.
	warnings chan []Warning
	// check is checkInterval, but in tests.
	check time.Duration
	// records are what was written; run's own.
	records map[Warning]*record
}

// record is the Event of one warning.
type record struct {
	event *eventsv1.Event
	// due is when to write it next.
	due time.Time
	// count is how often this agent wrote the Event; 0 while it is another's.
	count int32
	// failed is why the last request did; it is logged once.
	failed string
}

func newRecorder(cfg Config, client rest.Interface, log *zap.Logger) *recorder {
	return &recorder{
		node: cfg.NodeName, client: client, now: cfg.Now, log: log,
		warnings: make(chan []Warning, 1), check: checkInterval, records: map[Warning]*record{},
	}
}

// set hands the list to run; one that has not been taken yet is replaced.
func (r *recorder) set(warnings []Warning) {
	select {
	case <-r.warnings:
	default:
	}
	select {
	case r.warnings <- warnings:
	default: // Another call was faster, with news as fresh.
	}
}

// run writes Events until ctx ends; about looks up a warning's object.
func (r *recorder) run(ctx context.Context, about func(Warning) (kinds.Kind, types.UID)) error {
	check := time.NewTicker(r.check)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case warnings := <-r.warnings:
			r.update(warnings, about)
		case <-check.C:
		}
		for _, rec := range r.records {
			if now := r.now(); ctx.Err() == nil && !rec.due.After(now) {
				r.note(ctx, rec, now, r.write(ctx, rec, now))
			}
		}
	}
}

// update makes a record of each new warning and drops those of old ones.
func (r *recorder) update(warnings []Warning, about func(Warning) (kinds.Kind, types.UID)) {
	current := make(map[Warning]*record, len(warnings))
	for i, w := range warnings {
		if i == maxWarnings {
			r.log.Info("too many events, some are not written", zap.Int("warnings", len(warnings)))
			break
		}
		kind, uid := about(w)
		rec := r.records[w]
		if rec == nil || rec.event.Regarding.UID != uid {
			rec = &record{event: r.event(w, kind, uid)}
		}
		current[w] = rec
	}
	r.records = current
}

// note keeps the outcome of a write that began at a time.
func (r *recorder) note(ctx context.Context, rec *record, now time.Time, err error) {
	rec.due = now.Add(renewInterval)
	if err == nil || ctx.Err() != nil {
		rec.failed = ""
		return
	}
	if !apierrors.IsForbidden(err) {
		rec.due = now.Add(r.check)
	}
	if about := rec.event.Regarding; rec.failed != err.Error() {
		r.log.Warn("event not written", zap.String("kind", about.Kind),
			zap.String("namespace", about.Namespace), zap.String("name", about.Name), zap.Error(err))
	}
	rec.failed = err.Error()
}

// write creates the Event, or, if it is this agent's, continues its series. The
// agents of other nodes only try to create it, and take it over when it is gone.
func (r *recorder) write(ctx context.Context, rec *record, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if rec.count > 0 {
		err := r.renew(ctx, rec, now)
		if !apierrors.IsNotFound(err) {
			return err
		}
	}
	event := rec.event.DeepCopy()
	event.EventTime = metav1.NewMicroTime(now)
	err := r.client.Post().Namespace(event.Namespace).Resource("events").Body(event).Do(ctx).Error()
	rec.count = 0
	if err == nil {
		rec.count = 1
	}
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// renew writes that the fault was seen again, after which the Event lives
// another hour.
func (r *recorder) renew(ctx context.Context, rec *record, now time.Time) error {
	series := eventsv1.EventSeries{Count: rec.count + 1, LastObservedTime: metav1.NewMicroTime(now)}
	patch, err := json.Marshal(map[string]any{"series": series})
	if err != nil {
		return fmt.Errorf("encode series: %w", err)
	}
	event := rec.event
	err = r.client.Patch(types.MergePatchType).Namespace(event.Namespace).Resource("events").Name(event.Name).
		Body(patch).Do(ctx).Error()
	if err == nil {
		rec.count++
	}
	return err
}

// event is the Event of a warning, which is the same on every node.
func (r *recorder) event(w Warning, kind kinds.Kind, uid types.UID) *eventsv1.Event {
	if len(w.Note) > maxNote {
		w.Note = strings.ToValidUTF8(w.Note[:maxNote], "")
	}
	namespace := w.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where Events on cluster-scoped objects live
	}
	return &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Name: w.eventName(uid), Namespace: namespace},
		ReportingController: controller,
		ReportingInstance:   r.node,
		Action:              "Redirect",
		Type:                corev1.EventTypeWarning,
		Reason:              w.Reason,
		Note:                w.Note,
		Regarding: corev1.ObjectReference{
			Kind: w.Kind, Namespace: w.Namespace, Name: w.Name, UID: uid, APIVersion: kind.GroupVersion().String(),
		},
	}
}

// eventName is the same on every node, so that there is one Event of a fault in
// the cluster.
func (w Warning) eventName(uid types.UID) string {
	sum := fnv.New64a()
	for _, part := range []string{string(uid), w.Reason, w.Note} {
		_, _ = sum.Write([]byte(part + "\x00")) // A hash takes everything.
	}
	return fmt.Sprintf("%s.%x", w.Name, sum.Sum64())
}
