// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"cmp"
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

	"github.com/nodevoy/nodevoy/agent/model"
)

const (
	// maxEvents is how many Events are kept up at a time: they are news for
	// people, and nothing depends on them.
	maxEvents = 1024
	// renewInterval is how often an Event is renewed while its problem lasts:
	// API servers delete an Event that has not changed for an hour.
	renewInterval = 30 * time.Minute
	// checkInterval is the pause between two checks for Events that are due.
	checkInterval = time.Minute
	// writeTimeout bounds one request.
	writeTimeout = 10 * time.Second
	// maxNote is what the API allows for a note, in bytes.
	maxNote = 1024
	// controller is who reports, for reason.
	controller = "nodevoy.io/agent"
	reason     = "NotUsedAsWritten"
)

// Warn makes these the problems that there are: each has an Event, of its
// object and of type Warning, for as long as it is among them; the Event of one
// that no longer is expires by itself. It does not block and does not fail.
// Without the right to create Events it does nothing. Every node has an agent,
// and all that see the same problem share one Event.
func (s *Source) Warn(problems []model.Problem) {
	// A list that run has not taken yet is replaced.
	select {
	case <-s.recorder.problems:
	default:
	}
	select {
	case s.recorder.problems <- problems:
	default: // Another call was faster, with news as fresh.
	}
}

// regarding refers to the object of a problem. It has the UID, from what was read,
// because kubectl describe wants it.
func (s *Source) regarding(p model.Problem) corev1.ObjectReference {
	ref := corev1.ObjectReference{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}
	for _, f := range s.feeds {
		if f.kind.Kind == p.Kind {
			ref.APIVersion = f.kind.GroupVersion().String()
			ref.UID = f.uid(types.NamespacedName{Namespace: p.Namespace, Name: p.Name})
		}
	}
	return ref
}

// recorder keeps up the Events of the present problems.
type recorder struct {
	node   string
	client rest.Interface
	now    func() time.Time
	log    *zap.Logger
	// problems has the latest list, if run has not taken it yet.
	problems chan []model.Problem
	// check is checkInterval, but in tests.
	check time.Duration
	// records are what was written; run's own.
	records map[model.Problem]*record
}

// record is the Event of one problem.
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
		problems: make(chan []model.Problem, 1), check: checkInterval, records: map[model.Problem]*record{},
	}
}

// run writes Events until ctx ends; regarding refers to a problem's object.
func (r *recorder) run(ctx context.Context, regarding func(model.Problem) corev1.ObjectReference) error {
	check := time.NewTicker(r.check)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case problems := <-r.problems:
			r.update(problems, regarding)
		case <-check.C:
		}
		for _, rec := range r.records {
			if now := r.now(); ctx.Err() == nil && !rec.due.After(now) {
				r.note(ctx, rec, now, r.write(ctx, rec, now))
			}
		}
	}
}

// update makes a record of each new problem and drops those of old ones.
func (r *recorder) update(problems []model.Problem, regarding func(model.Problem) corev1.ObjectReference) {
	if len(problems) > maxEvents {
		r.log.Info("too many events, some are not written", zap.Int("problems", len(problems)))
		problems = problems[:maxEvents]
	}
	current := make(map[model.Problem]*record, len(problems))
	for _, p := range problems {
		ref := regarding(p)
		rec := r.records[p]
		if rec == nil || rec.event.Regarding.UID != ref.UID {
			rec = &record{event: r.event(p, ref)}
		}
		current[p] = rec
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

// event is the Event of a problem. Its name is the same on every node, so that
// there is one Event of a problem in the cluster.
func (r *recorder) event(p model.Problem, regarding corev1.ObjectReference) *eventsv1.Event {
	note := p.Field + ": " + p.Detail
	if len(note) > maxNote {
		note = strings.ToValidUTF8(note[:maxNote], "")
	}
	sum := fnv.New64a()
	for _, part := range []string{string(regarding.UID), reason, note} {
		_, _ = sum.Write([]byte(part + "\x00")) // A hash takes everything.
	}
	return &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s.%x", p.Name, sum.Sum64()),
			// Events on cluster-scoped objects live in the default namespace.
			Namespace: cmp.Or(p.Namespace, metav1.NamespaceDefault),
		},
		ReportingController: controller,
		ReportingInstance:   r.node,
		Action:              "Redirect",
		Type:                corev1.EventTypeWarning,
		Reason:              reason,
		Note:                note,
		Regarding:           regarding,
	}
}
