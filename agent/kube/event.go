// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"
)

// Object names a user's object that an Event is about.
type Object struct {
	// Kind is Namespace, Node, Pod, Service or EndpointSlice.
	Kind, Namespace, Name string
}

const (
	// eventQueue is how many Events may wait to be written; more are dropped,
	// since they are news for people and nothing depends on them.
	eventQueue = 64
	// eventMemory is how many Events are remembered in order not to repeat them.
	eventMemory = 1024
	// eventTimeout bounds the writing of one Event.
	eventTimeout = 10 * time.Second
	// maxNote is what the API allows for a note, in bytes.
	maxNote = 1024
	// component is who reports.
	component = "nodevoy.io/agent"
)

// Event tells the owner of an object, by a Kubernetes Event of type Warning,
// what is wrong with it. The reason is one CamelCase word, the note a sentence.
// It does not block and does not fail; the same Event is written once. Without
// the right to create Events it does nothing. Every node has an agent, and all
// that see the same fault write the same Event: it appears once.
func (s *Source) Event(about Object, reason, note string) {
	if s == nil || s.recorder == nil {
		return
	}
	ref := corev1.ObjectReference{Kind: about.Kind, Namespace: about.Namespace, Name: about.Name, APIVersion: "v1"}
	if about.Kind == kindEndpointSlice {
		ref.APIVersion = "discovery.k8s.io/v1"
	}
	ref.UID = s.uid(about)
	if len(note) > maxNote {
		note = note[:maxNote]
	}
	select {
	case s.recorder.queue <- event{regarding: ref, reason: reason, note: note}:
	default:
		s.log.Debug("too many events, dropped one", zap.String("reason", reason), zap.String("note", note))
	}
}

// uid is the object's, from the caches; kubectl describe wants it.
func (s *Source) uid(about Object) types.UID {
	w, ok := s.byKind[about.Kind]
	if !ok {
		return ""
	}
	key := about.Name
	if about.Namespace != "" {
		key = about.Namespace + "/" + about.Name
	}
	object, _, _ := w.informer.GetStore().GetByKey(key)
	if o, ok := object.(metav1.Object); ok {
		return o.GetUID()
	}
	return ""
}

// event is one that waits to be written. Equal ones are the same Event.
type event struct {
	regarding    corev1.ObjectReference
	reason, note string
}

// recorder writes Events, one at a time.
type recorder struct {
	node   string
	client eventsclient.EventsV1Interface
	now    func() time.Time
	log    *zap.Logger
	queue  chan event
}

func newRecorder(cfg Config, log *zap.Logger) *recorder {
	return &recorder{
		node: cfg.NodeName, client: cfg.Client.EventsV1(), now: cfg.Now, log: log, queue: make(chan event, eventQueue),
	}
}

func (r *recorder) run(ctx context.Context) error {
	written := map[event]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-r.queue:
			if written[e] {
				continue
			}
			if len(written) >= eventMemory {
				clear(written)
			}
			written[e] = true
			if err := r.write(ctx, e); err != nil && ctx.Err() == nil {
				r.log.Warn("event not written", zap.String("kind", e.regarding.Kind),
					zap.String("namespace", e.regarding.Namespace), zap.String("name", e.regarding.Name), zap.Error(err))
			}
		}
	}
}

func (r *recorder) write(ctx context.Context, e event) error {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	now := r.now()
	namespace := e.regarding.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // where Events on cluster-scoped objects live
	}
	_, err := r.client.Events(namespace).Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Name: e.name(), Namespace: namespace,
		},
		EventTime:           metav1.NewMicroTime(now),
		ReportingController: component,
		ReportingInstance:   r.node,
		Action:              "Redirect",
		Type:                corev1.EventTypeWarning,
		Reason:              e.reason,
		Note:                e.note,
		Regarding:           e.regarding,
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil // The agent of another node was first.
	}
	return err
}

// name is the same on every node, so that a fault which all agents see is told
// once in the cluster.
func (e event) name() string {
	sum := fnv.New64a()
	for _, part := range []string{string(e.regarding.UID), e.reason, e.note} {
		_, _ = sum.Write([]byte(part + "\x00")) // A hash takes everything.
	}
	return fmt.Sprintf("%s.%x", e.regarding.Name, sum.Sum64())
}
