// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
)

// Events are those that are stored, with the names of objects they are about.
func (s *Server) Events() map[string]eventsv1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]eventsv1.Event{}
	for _, e := range s.events {
		all[e.Regarding.Name] = *e.DeepCopy()
	}
	return all
}

// ExpireEvents deletes all Events, as the API server does with old ones.
func (s *Server) ExpireEvents() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.events)
}

// writeEvent creates an Event, or continues its series.
func (s *Server) writeEvent(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if req.Method == http.MethodPatch {
		s.patchEvent(w, req, body)
		return
	}
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(eventsv1.SchemeGroupVersion, &eventsv1.Event{})
	event := &eventsv1.Event{}
	if err := runtime.DecodeInto(serializer.NewCodecFactory(scheme).UniversalDeserializer(), body, event); err != nil {
		refuse(w, http.StatusBadRequest)
		return
	}
	name := types.NamespacedName{Namespace: event.Namespace, Name: event.Name}
	if s.events[name] != nil {
		refuse(w, http.StatusConflict)
		return
	}
	s.events[name] = event
	reply(w, event)
}

// patchEvent applies a merge patch of a series.
func (s *Server) patchEvent(w http.ResponseWriter, req *http.Request, body []byte) {
	// /apis/events.k8s.io/v1/namespaces/NAMESPACE/events/NAME
	path := strings.Split(req.URL.Path, "/")
	stored := s.events[types.NamespacedName{Namespace: path[5], Name: path[7]}]
	if stored == nil {
		refuse(w, http.StatusNotFound)
		return
	}
	patched := stored.DeepCopy()
	err := json.Unmarshal(body, patched)
	// What the API server insists on.
	if err != nil || patched.Series == nil || patched.Series.Count < 2 || patched.Series.LastObservedTime.IsZero() {
		refuse(w, http.StatusUnprocessableEntity)
		return
	}
	*stored = *patched
	reply(w, patched)
}
