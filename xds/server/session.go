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

// absent is the version of a name that doesn't exist. No resource has it, so that
// a name the client was told not to exist is sent as soon as it does.
const absent = ""

// session is one ADS stream: what its Envoy requested, was sent and answered. It
// is the cache and the callbacks of the library's delta server, which calls it
// from one goroutine. All of its state is protected by the Server's lock.
type session struct {
	server *Server
	since  time.Time
	subs   [xds.KindCount]subscription
	// version is that of the Envoy; unknown before it says so.
	version Version
	// listeners is nil when it must be computed again. See listening.
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
	// wildcard and names are what the client wants.
	wildcard bool
	names    map[string]struct{}
	// sent is the version of each resource that the client was sent, or reported
	// to have. acked is the version that it accepted.
	sent, acked map[string]string
	// due are names that are sent next, even if nothing changed.
	due map[string]demand
	// composed are the responses in out: for each, whether it has more than what the
	// client has asked for since the last publication.
	composed []bool
	// flying counts the names in responses that are not answered yet.
	flying int
	// refused are those that the client refused last.
	refused map[string]nack
	// apart are groups of names, each to be sent in a response of its own: what
	// was refused before, and the halves of a refused response.
	apart [][]string
	// upTo is the publication that all names were last compared with. Until the
	// next one, only the due names can have changes, so that the cost of a request
	// does not grow with the names in use.
	upTo int
}

// response is the kind and the versions of one that is not answered yet.
type response struct {
	kind     xds.Kind
	versions map[string]string
	// changing is set if it has more than what the client has asked for since the
	// last publication.
	changing bool
}

// CreateWatch rejects state-of-the-world requests: on-demand clusters exist in
// delta only.
func (*session) CreateWatch(*cache.Request, cache.Subscription, chan cache.Response) (func(), error) {
	return nil, errors.New("only delta xDS is served")
}

// CreateDeltaWatch sends what changed for the request, now or once there is any.
func (s *session) CreateDeltaWatch(req *cache.DeltaRequest, sub cache.Subscription, out chan cache.DeltaResponse) (func(), error) {
	k, ok := xds.KindOf(req.GetTypeUrl())
	if !ok {
		return nil, nil // Never answered: this type is not served.
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.watch(k, req, sub, out)
	s.push()
	state := &s.subs[k]
	if state.request != nil {
		s.server.notify() // Nothing was left to send.
	}
	return func() {
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		state.request, state.out = nil, nil
	}, nil
}

// watch records a request. The library also keeps names and versions, but writes
// the names without our lock, and needs a copy of all versions for each response.
func (s *session) watch(k xds.Kind, req *cache.DeltaRequest, sub cache.Subscription, out chan cache.DeltaResponse) {
	t := &s.subs[k]
	t.request, t.out = req, out
	t.wildcard = sub.IsWildcard()
	if !t.started {
		t.started = true
		t.names = map[string]struct{}{}
		t.sent = map[string]string{}
		for name, version := range req.GetInitialResourceVersions() {
			s.setSent(k, name, version)
		}
		t.acked = maps.Clone(t.sent)
		t.due = map[string]demand{}
		t.refused = map[string]nack{}
	}
	for _, name := range req.GetResourceNamesSubscribe() {
		if name == "*" {
			continue
		}
		t.names[name] = struct{}{}
		if _, held := req.GetInitialResourceVersions()[name]; !held {
			t.due[name] = s.server.demand(true)
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

// setSent records the version of a resource that the client has, or will have
// once it accepts it.
func (s *session) setSent(k xds.Kind, name, version string) {
	t := &s.subs[k]
	if k == xds.KindCluster {
		if at, _, ok := xds.FrontendOf(name); ok {
			s.server.uses.change(at, s.server.frontend(at), t.sent[name], version)
		}
	}
	t.sent[name] = version
}

// forget removes what setSent recorded.
func (s *session) forget(k xds.Kind, name string) {
	s.setSent(k, name, absent)
	delete(s.subs[k].sent, name)
}

// push sends what is new of every kind whose watch is open. The caller holds the
// lock.
func (s *session) push() {
	for k := range xds.KindCount {
		t := &s.subs[k]
		if t.request == nil || len(t.out) == cap(t.out) {
			// The channel is never full: it has room for two responses of each kind,
			// and holds one at most. Sending to a full one would block.
			continue
		}
		if resp := s.compose(k); resp != nil {
			t.out <- resp
			t.request, t.out = nil, nil
		}
	}
}

// compose makes the response that brings the client up to date with one kind,
// and records it as sent; nil if there is nothing to send.
func (s *session) compose(k xds.Kind) *cache.DeltaPassthroughResponse {
	t := &s.subs[k]
	msg := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: k.TypeURL(), SystemVersionInfo: strconv.Itoa(s.server.publications)}
	changing := s.addChanges(msg, k)
	for empty(msg) && len(t.apart) > 0 {
		changing = true
		for _, name := range t.apart[0] {
			if _, known := t.sent[name]; known {
				s.add(msg, k, name, s.server.current.resource(k, name))
			}
		}
		t.apart = t.apart[1:]
	}
	// An empty response says that there are no listeners, as Envoy waits for some.
	none := t.upTo == 0 && k == xds.KindListener && len(s.server.current.Listeners().Names) == 0
	t.upTo = s.server.publications
	if empty(msg) && !none {
		return nil
	}
	t.composed = append(t.composed, changing || none)
	t.flying += len(msg.GetResources()) + len(msg.GetRemovedResources())
	return &cache.DeltaPassthroughResponse{DeltaRequest: t.request, DeltaDiscoveryResponse: msg, NextVersionMap: map[string]string{}}
}

func empty(msg *discoveryv3.DeltaDiscoveryResponse) bool {
	return len(msg.GetResources())+len(msg.GetRemovedResources()) == 0
}

// addChanges adds to a message the names that changed or are due, and says whether
// any of them is not just one that the client has asked for.
func (s *session) addChanges(msg *discoveryv3.DeltaDiscoveryResponse, k xds.Kind) (changing bool) {
	t := &s.subs[k]
	var loads []load
	for _, name := range s.candidates(k) {
		sent, known := t.sent[name]
		d, due := t.due[name]
		r := s.server.current.resource(k, name)
		switch {
		case k == xds.KindCluster && (r == nil) != (sent == absent):
			loads = append(loads, s.newLoad(name, r))
			continue
		case due || !known || r == nil && sent != absent || r != nil && sent != r.Version:
			changing = changing || !d.asked
			s.add(msg, k, name, r)
		}
		delete(t.due, name)
	}
	return s.load(msg, loads) || changing
}

// add adds a resource to a message, or its removal if r is nil.
func (s *session) add(msg *discoveryv3.DeltaDiscoveryResponse, k xds.Kind, name string, r *resource) {
	if r == nil {
		msg.RemovedResources = append(msg.RemovedResources, name)
		s.setSent(k, name, absent)
		return
	}
	msg.Resources = append(msg.Resources, &discoveryv3.Resource{Name: name, Version: r.Version, Resource: r.Body})
	s.setSent(k, name, r.Version)
	if k != xds.KindCluster {
		return
	}
	// Its assignment follows, changed or not: until one comes after it, Envoy
	// neither uses nor answers a changed cluster. The cluster's version in the
	// assignment is for a stream that ends between the two.
	t := &s.subs[xds.KindEndpoints]
	if _, requested := t.names[name]; requested {
		t.due[name] = s.server.demand(false)
	}
}

// candidates are the names of a kind that may have changes, sorted.
func (s *session) candidates(k xds.Kind) []string {
	t := &s.subs[k]
	switch {
	case t.upTo == s.server.publications:
		return sortedKeys(t.due)
	case !t.wildcard:
		return sortedKeys(t.names)
	}
	var all []string
	if k == xds.KindListener {
		all = s.server.current.Listeners().Names
	}
	// Usually all names that were sent or are due exist: nothing is to be sorted.
	more := slices.AppendSeq(slices.Collect(maps.Keys(t.sent)), maps.Keys(t.due))
	more = slices.DeleteFunc(more, func(name string) bool {
		_, found := slices.BinarySearch(all, name)
		return found
	})
	if len(more) == 0 {
		return all
	}
	more = append(more, all...)
	slices.Sort(more)
	return slices.Compact(more)
}

// OnDeltaStreamOpen does nothing: the session was made for the stream.
func (*session) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

// OnDeltaStreamClosed does nothing: the Server closes the session.
func (*session) OnDeltaStreamClosed(int64, *corev3.Node) {}

// OnStreamDeltaResponse records a response that is being sent.
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
	t := &s.subs[k]
	s.pending[resp.GetNonce()] = response{kind: k, versions: versions, changing: t.composed[0]}
	t.composed = t.composed[1:]
	s.server.kinds[k].Responses++
}

// OnStreamDeltaRequest records the answer to a response, if the request is one.
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
	s.subs[r.kind].flying -= len(r.versions)
	if detail := req.GetErrorDetail(); detail != nil {
		s.server.countNack(r, detail.GetMessage())
		s.nacked(r, detail.GetMessage())
	} else {
		s.server.kinds[r.kind].Acks++
		for name, version := range r.versions {
			s.accept(r.kind, name, version)
		}
	}
	s.answersChanged()
	s.server.notify()
	return nil
}

// answersChanged drops what was computed from the client's answers.
func (s *session) answersChanged() { s.listeners, s.server.refused = nil, nil }
