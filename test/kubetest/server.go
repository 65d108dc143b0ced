// SPDX-License-Identifier: Apache-2.0

package kubetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/nodevoy/nodevoy/agent/kinds"
)

// Server is a fake API server over HTTP: it lists, streams and watches objects
// of the given kinds, and stores Events. It can refuse, break and withhold what
// a real one can. Labels are selected by, fields are not.
type Server struct {
	http *httptest.Server

	mu      sync.Mutex
	version int
	// resources are by the path of all their objects.
	resources map[string]*servedKind
	events    map[types.NamespacedName]*eventsv1.Event
	refusals  map[string]int
	held      map[string]chan struct{}
	queries   map[string]url.Values
	requests  map[string]int
}

// servedKind is the objects of one kind, and all that ever happened to them.
type servedKind struct {
	kind     kinds.Kind
	objects  map[types.NamespacedName]kinds.Object
	log      []change
	withheld bool
	// next is closed at the next change, broken when watches are to end.
	next, broken chan struct{}
}

type change struct {
	version int
	event   watch.EventType
	object  kinds.Object
}

// NewServer starts a server of these kinds, which ends with the test.
func NewServer(t testing.TB, served ...kinds.Kind) *Server {
	s := &Server{
		resources: map[string]*servedKind{}, events: map[types.NamespacedName]*eventsv1.Event{},
		refusals: map[string]int{}, held: map[string]chan struct{}{}, queries: map[string]url.Values{}, requests: map[string]int{},
	}
	for _, kind := range served {
		s.Serve(kind)
	}
	s.http = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// Close ends the server and all watches.
func (s *Server) Close() {
	s.http.CloseClientConnections()
	s.http.Close()
}

// Config says how to reach the server.
func (s *Server) Config() *rest.Config { return &rest.Config{Host: s.http.URL, QPS: -1} }

// Serve adds a kind, as the installation of a CustomResourceDefinition does.
func (s *Server) Serve(kind kinds.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resources[pathOf(kind)] = &servedKind{
		kind: kind, objects: map[types.NamespacedName]kinds.Object{}, next: make(chan struct{}), broken: make(chan struct{}),
	}
}

// Unserve removes a kind.
func (s *Server) Unserve(kind kinds.Kind) {
	s.BreakWatches(kind.Resource)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.resources, pathOf(kind))
}

func pathOf(kind kinds.Kind) string {
	if kind.Group == "" {
		return "/api/" + kind.Version + "/" + kind.Resource
	}
	return "/apis/" + kind.Group + "/" + kind.Version + "/" + kind.Resource
}

// Refuse has requests of this verb (list, watch, create, patch) to a resource
// answered with this HTTP status; 0 to answer them again.
func (s *Server) Refuse(verb, resource string, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusals[verb+" "+resource] = status
}

// Hold leaves requests of this verb to a resource unanswered until the function
// that it returns is called.
func (s *Server) Hold(verb, resource string) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := make(chan struct{})
	s.held[verb+" "+resource] = held
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.held, verb+" "+resource)
		close(held)
	})
}

// WithholdBookmarks has streams of a resource never say that they are complete.
func (s *Server) WithholdBookmarks(resource string, withheld bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resource(resource).withheld = withheld
}

// BreakWatches ends the watches of a resource.
func (s *Server) BreakWatches(resource string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.resource(resource)
	close(r.broken)
	r.broken = make(chan struct{})
}

// Requests counts those of this verb to a resource, and has the last one's query.
func (s *Server) Requests(verb, resource string) (int, url.Values) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[verb+" "+resource], s.queries[verb+" "+resource]
}

// Put creates or replaces an object, its status included.
func (s *Server) Put(object kinds.Object) { s.change(object, false) }

// Delete removes an object at once.
func (s *Server) Delete(object kinds.Object) { s.change(object, true) }

func (s *Server) change(object kinds.Object, deleted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	r := s.resourceOf(object)
	o := object.DeepCopyObject().(kinds.Object)
	o.GetObjectKind().SetGroupVersionKind(r.kind.GroupVersionKind)
	o.SetResourceVersion(strconv.Itoa(s.version))
	name, event := kinds.NameOf(o), watch.Added
	if old := r.objects[name]; old != nil {
		event = watch.Modified
		o.SetUID(old.GetUID())
	} else if o.GetUID() == "" {
		o.SetUID(types.UID(fmt.Sprintf("uid-%d", s.version)))
	}
	r.objects[name] = o
	if deleted {
		event = watch.Deleted
		delete(r.objects, name)
	}
	r.log = append(r.log, change{s.version, event, o})
	close(r.next)
	r.next = make(chan struct{})
}

func (s *Server) resource(plural string) *servedKind {
	for _, r := range s.resources {
		if r.kind.Resource == plural {
			return r
		}
	}
	panic("kubetest: " + plural + " are not served")
}

func (s *Server) resourceOf(object kinds.Object) *servedKind {
	for _, r := range s.resources {
		if fmt.Sprintf("%T", r.kind.New()) == fmt.Sprintf("%T", object) {
			return r
		}
	}
	panic(fmt.Sprintf("kubetest: %T is not served", object))
}

// ServeHTTP answers a request of the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	path := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	query := req.URL.Query()
	verb, plural := "list", path[len(path)-1]
	switch {
	case req.Method == http.MethodPost:
		verb = "create"
	case req.Method == http.MethodPatch:
		verb, plural = "patch", path[len(path)-2]
	case query.Get("watch") == "true" || query.Get("watch") == "1":
		verb = "watch"
	}
	s.mu.Lock()
	s.requests[verb+" "+plural]++
	s.queries[verb+" "+plural] = query
	refusal := s.refusals[verb+" "+plural]
	r := s.resources[req.URL.Path]
	held := s.held[verb+" "+plural]
	s.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-req.Context().Done():
		}
	}
	switch {
	case refusal != 0:
		refuse(w, refusal)
	case verb == "create" || verb == "patch":
		s.writeEvent(w, req)
	case r == nil:
		refuse(w, http.StatusNotFound)
	case verb == "list":
		s.list(w, r, query)
	default:
		s.watch(w, req, r)
	}
}

// reasons are those that the API server gives with a status.
func reasons() map[int]metav1.StatusReason {
	return map[int]metav1.StatusReason{
		http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusNotFound: metav1.StatusReasonNotFound,
		http.StatusConflict: metav1.StatusReasonAlreadyExists, http.StatusGone: metav1.StatusReasonExpired,
		http.StatusTooManyRequests: metav1.StatusReasonTooManyRequests, http.StatusUnprocessableEntity: metav1.StatusReasonInvalid,
	}
}

func refuse(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	reply(w, metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Code: int32(code), Reason: reasons()[code], Message: strings.ToLower(http.StatusText(code)),
	})
}

// reply writes a value; the client is gone if that fails.
func reply(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// selected are the objects that the query selects.
func (s *Server) selected(r *servedKind, query url.Values) []kinds.Object {
	selector, err := labels.Parse(query.Get("labelSelector"))
	if err != nil {
		panic(fmt.Sprintf("kubetest: label selector %q: %v", query.Get("labelSelector"), err))
	}
	return slices.DeleteFunc(slices.Collect(maps.Values(r.objects)), func(o kinds.Object) bool {
		return !selector.Matches(labels.Set(o.GetLabels()))
	})
}

func (s *Server) list(w http.ResponseWriter, r *servedKind, query url.Values) {
	s.mu.Lock()
	items, version := s.selected(r, query), s.version
	s.mu.Unlock()
	reply(w, map[string]any{
		"kind": r.kind.Kind + "List", "apiVersion": r.kind.GroupVersion().String(),
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(version)}, "items": items,
	})
}

// watch streams all objects, if asked to, and then changes.
func (s *Server) watch(w http.ResponseWriter, req *http.Request, r *servedKind) {
	query := req.URL.Query()
	send := func(event watch.EventType, object any) {
		reply(w, map[string]any{"type": event, "object": object})
	}
	from, _ := strconv.Atoi(query.Get("resourceVersion"))
	s.mu.Lock()
	broken := r.broken
	if query.Get("sendInitialEvents") == "true" {
		for _, o := range s.selected(r, query) {
			send(watch.Added, o)
		}
		from = s.version
		if !r.withheld {
			bookmark := r.kind.New()
			bookmark.GetObjectKind().SetGroupVersionKind(r.kind.GroupVersionKind)
			bookmark.SetResourceVersion(strconv.Itoa(from))
			bookmark.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
			send(watch.Bookmark, bookmark)
		}
	}
	s.mu.Unlock()
	for {
		s.mu.Lock()
		next := r.next
		for _, c := range r.log {
			if c.version > from {
				send(c.event, c.object)
				from = c.version
			}
		}
		s.mu.Unlock()
		w.(http.Flusher).Flush()
		select {
		case <-next:
		case <-broken:
			return
		case <-req.Context().Done():
			return
		}
	}
}
