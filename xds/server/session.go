// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/nodevoy/nodevoy/xds"
)

// absent is the version of a name that the client was told not to exist. No
// resource has it, so the name is sent as soon as it comes to be.
const absent = ""

// everything is the name by which a client asks for all there is of a kind.
const everything = "*"

// session is one ADS stream: what its Envoy asked for, sent and answered.
// The library's delta server speaks the protocol and calls the session, as its
// cache and its callbacks, from one goroutine; the Server calls it when
// something new is published. All of its state is guarded by the Server's lock.
type session struct {
	server *Server
	since  time.Time
	subs   [xds.KindCount]subscription
	// version is that of the Envoy; unknown before it says so.
	version Version
	// listeners is nil when what it holds must be found anew. See listening.
	listeners *listening
	// pending are the responses that are not answered yet, by nonce.
	pending map[string]response
}

// subscription is a session's state for one kind of resource.
type subscription struct {
	// started is set by the first request of this kind.
	started bool
	// request and out are those of the open watch; request is nil while none
	// is open, which is from a response until its answer.
	request *cache.DeltaRequest
	out     chan cache.DeltaResponse
	// queued counts the responses handed over and not yet sent.
	queued int
	// wildcard and names are what the client wants.
	wildcard bool
	names    map[string]struct{}
	// sent is the version of each resource the client has been sent, or has
	// said it holds. acked are those of them it has accepted.
	sent, acked map[string]string
	// due are names that the client is waiting to hear about, even if
	// nothing changed.
	due map[string]struct{}
	// refused are those that the client refused last.
	refused map[string]nack
	// apart are groups of names, each to be sent in a response of its own: what
	// was refused before, and the parts of a refused response.
	apart [][]string
	// upTo is the publication that all names were last compared with. Until
	// the next one only the due names can have anything new: what a request
	// costs does not grow with the names in use.
	upTo int
}

// response is one on its way.
type response struct {
	kind     xds.Kind
	versions map[string]string
	at       time.Time
}

// CreateWatch refuses state-of-the-world requests: on-demand clusters exist in
// delta only.
func (*session) CreateWatch(*cache.Request, cache.Subscription, chan cache.Response) (func(), error) {
	return nil, errors.New("only delta xDS is served")
}

// CreateDeltaWatch answers the request at once, as far as there is anything to
// say, and otherwise as soon as there is.
func (s *session) CreateDeltaWatch(req *cache.DeltaRequest, sub cache.Subscription, out chan cache.DeltaResponse) (func(), error) {
	k, ok := xds.KindOf(req.GetTypeUrl())
	if !ok {
		// Say nothing, for ever: the client asked for a type we never serve.
		return nil, nil
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.watch(k, req, sub, out)
	s.push()
	state := &s.subs[k]
	if state.request != nil {
		s.server.notify() // There was nothing left to send.
	}
	return func() {
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		state.request, state.out = nil, nil
	}, nil
}

// watch takes over what the client asks for in a request. The library keeps names
// and versions, too, but writes to the names without our lock, and wants the
// versions copied for each response: so these are our own.
func (s *session) watch(k xds.Kind, req *cache.DeltaRequest, sub cache.Subscription, out chan cache.DeltaResponse) {
	t := &s.subs[k]
	t.request, t.out = req, out
	t.wildcard = sub.IsWildcard()
	if !t.started {
		t.started = true
		t.names = map[string]struct{}{}
		t.sent = map[string]string{}
		for name, version := range req.GetInitialResourceVersions() {
			s.noteSent(k, name, version)
		}
		t.acked = maps.Clone(t.sent)
		t.due = map[string]struct{}{}
		t.refused = map[string]nack{}
	}
	for _, name := range req.GetResourceNamesSubscribe() {
		if name == everything {
			continue
		}
		t.names[name] = struct{}{}
		if _, held := req.GetInitialResourceVersions()[name]; !held {
			t.due[name] = struct{}{}
		}
	}
	for _, name := range req.GetResourceNamesUnsubscribe() {
		s.forget(k, name)
		delete(t.names, name)
		delete(t.acked, name)
		delete(t.due, name)
		delete(t.refused, name)
	}
	s.answersChanged()
}

// noteSent notes the version of a resource that the client has, or will have
// once it accepts it.
func (s *session) noteSent(k xds.Kind, name, version string) {
	t := &s.subs[k]
	if k == xds.KindCluster {
		s.server.countUse(name, t.sent[name], version)
	}
	t.sent[name] = version
}

// forget drops what was noted as sent.
func (s *session) forget(k xds.Kind, name string) {
	s.noteSent(k, name, absent)
	delete(s.subs[k].sent, name)
}

// push sends whatever is new on every kind that is ready for it. The caller
// holds the lock.
func (s *session) push() {
	for k := range xds.KindCount {
		t := &s.subs[k]
		if t.request == nil || len(t.out) == cap(t.out) {
			// A full channel can't be: it has room for two responses of each
			// kind, and each has one on its way at most. Sending would block.
			continue
		}
		if resp := s.compose(k); resp != nil {
			t.out <- resp
			t.queued++
			t.request, t.out = nil, nil
		}
	}
}

// compose makes the response that brings the client up to date with one kind,
// and notes it as sent; nil if there is nothing to send.
func (s *session) compose(k xds.Kind) *cache.DeltaPassthroughResponse {
	t, p := &s.subs[k], s.server.current
	if p == nil {
		return nil
	}
	msg := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: k.TypeURL(), SystemVersionInfo: strconv.Itoa(s.server.publications)}
	s.addChanges(msg, k, s.candidates(k))
	clear(t.due)
	first := t.upTo == 0
	t.upTo = s.server.publications
	for empty(msg) && len(t.apart) > 0 {
		s.addAgain(msg, k, t.apart[0])
		t.apart = t.apart[1:]
	}
	// That there are no listeners is said, as Envoy waits for some.
	none := first && k == xds.KindListener && len(p.Listeners().Names) == 0
	if empty(msg) && !none {
		return nil
	}
	return &cache.DeltaPassthroughResponse{DeltaRequest: t.request, DeltaDiscoveryResponse: msg, NextVersionMap: map[string]string{}}
}

func empty(msg *discoveryv3.DeltaDiscoveryResponse) bool {
	return len(msg.GetResources())+len(msg.GetRemovedResources()) == 0
}

// addChanges adds to a message those of the names that changed or are due.
func (s *session) addChanges(msg *discoveryv3.DeltaDiscoveryResponse, k xds.Kind, names []string) {
	t := &s.subs[k]
	for _, name := range names {
		sent, known := t.sent[name]
		_, due := t.due[name]
		r := s.server.current.resource(k, name)
		if due || !known || r == nil && sent != absent || r != nil && sent != r.Version {
			s.add(msg, k, name, r)
		}
	}
}

// addAgain adds to a message the names of a group that is sent apart, as far as
// the client still knows them.
func (s *session) addAgain(msg *discoveryv3.DeltaDiscoveryResponse, k xds.Kind, names []string) {
	for _, name := range names {
		if _, known := s.subs[k].sent[name]; known {
			s.add(msg, k, name, s.server.current.resource(k, name))
		}
	}
}

// add adds a resource to a message, or its removal if r is nil.
func (s *session) add(msg *discoveryv3.DeltaDiscoveryResponse, k xds.Kind, name string, r *resource) {
	if r == nil {
		msg.RemovedResources = append(msg.RemovedResources, name)
		s.noteSent(k, name, absent)
		return
	}
	msg.Resources = append(msg.Resources, &discoveryv3.Resource{Name: name, Version: r.Version, Resource: r.Body})
	s.noteSent(k, name, r.Version)
	if k == xds.KindCluster {
		s.resendAssignment(name)
	}
}

// candidates are the names of a kind for which there may be something to send,
// sorted.
func (s *session) candidates(k xds.Kind) []string {
	t := &s.subs[k]
	switch {
	case t.upTo == s.server.publications:
		return sortedKeys(t.due)
	case !t.wildcard:
		return sortedKeys(t.names)
	}
	var names []string
	if k == xds.KindListener {
		names = s.server.current.Listeners().Names
	}
	return merge(names, t.sent, t.due)
}

// merge adds to sorted names the keys that are not among them. The result is
// sorted; in the common case that there are none it is names itself.
func merge(names []string, sent map[string]string, due map[string]struct{}) []string {
	var more []string
	add := func(name string) {
		if _, found := slices.BinarySearch(names, name); !found {
			more = append(more, name)
		}
	}
	for name := range sent {
		add(name)
	}
	for name := range due {
		add(name)
	}
	if len(more) == 0 {
		return names
	}
	all := slices.Concat(names, more)
	slices.Sort(all)
	return slices.Compact(all)
}

// resendAssignment has an assignment sent after its cluster, changed or not.
// Envoy keeps a changed cluster back, and with it its answer, until an
// assignment comes after it. That the assignment also carries the cluster's version is for the case
// that the stream ends between the two.
func (s *session) resendAssignment(name string) {
	t := &s.subs[xds.KindEndpoints]
	if _, wanted := t.names[name]; wanted {
		t.due[name] = struct{}{}
	}
}

// OnDeltaStreamOpen has nothing to add: the session was made for the stream.
func (*session) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

// OnDeltaStreamClosed has nothing to add: the Server drops the session.
func (*session) OnDeltaStreamClosed(int64, *corev3.Node) {}

// OnStreamDeltaResponse notes that a response is being sent.
func (s *session) OnStreamDeltaResponse(_ int64, _ *discoveryv3.DeltaDiscoveryRequest, resp *discoveryv3.DeltaDiscoveryResponse) {
	k, ok := xds.KindOf(resp.GetTypeUrl())
	if !ok {
		return
	}
	versions := map[string]string{}
	for _, r := range resp.GetResources() {
		versions[r.GetName()] = r.GetVersion()
	}
	for _, name := range resp.GetRemovedResources() {
		versions[name] = absent
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.subs[k].queued--
	s.pending[resp.GetNonce()] = response{kind: k, versions: versions, at: s.server.now()}
	s.server.counts[k].responses++
}

// OnStreamDeltaRequest notes the answer to a response, if the request is one.
// What was refused is not sent again at once: as far as the library is
// concerned, the client has been sent it.
func (s *session) OnStreamDeltaRequest(_ int64, req *discoveryv3.DeltaDiscoveryRequest) error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if v := versionOf(req.GetNode()); v.Known() {
		s.version = v
	}
	r, ok := s.pending[req.GetResponseNonce()]
	if !ok {
		return nil
	}
	delete(s.pending, req.GetResponseNonce())
	if detail := req.GetErrorDetail(); detail != nil {
		s.server.countNack(r, detail.GetMessage())
		s.refuse(r, detail.GetMessage())
	} else {
		s.server.counts[r.kind].acks++
		for name, version := range r.versions {
			s.accept(r.kind, name, version)
		}
	}
	s.answersChanged()
	s.server.notify()
	return nil
}

// answersChanged has what follows from the client's answers found anew.
func (s *session) answersChanged() { s.listeners, s.server.refused = nil, nil }
