// SPDX-License-Identifier: Apache-2.0

package server

import (
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

const (
	// retryFirst and retryMax are how long after a refusal a resource is sent
	// again: what was in its way, such as a port that is taken, may be gone. The
	// pause doubles with each refusal of the same version.
	retryFirst, retryMax = 5 * time.Second, time.Minute
	// maxReason bounds, in bytes, the reason of a refusal: Envoy may quote the
	// whole resource, between what it can't do and why.
	maxReason = 400
)

// nack is a resource that the client refused: in which version, with which
// words and when.
type nack struct {
	version, detail string
	at              time.Time
	// pause is how long after that it is sent again; resent is set once it is.
	pause  time.Duration
	resent bool
}

// accept notes that the client has taken over a resource, or that it is gone.
func (s *session) accept(k xds.Kind, name, version string) {
	t := &s.subs[k]
	t.acked[name] = version
	delete(t.refused, name)
	if _, named := t.names[name]; !named && version == absent && t.sent[name] == absent {
		// Nobody asked for this name, and nobody will again: pods come and go.
		delete(t.acked, name)
		s.forget(k, name)
	}
}

// refuse notes that the client refused a response. Unless it names which of
// several resources it refused, it may have taken over some, all but one or
// none: they are sent again in two halves, until each is accepted or refused by
// itself.
func (s *session) refuse(r response, detail string) {
	named := blame(detail, r.versions)
	if len(r.versions) == 1 {
		for name := range r.versions {
			named = map[string]string{name: detail}
		}
	}
	if len(named) == 0 {
		names := sortedKeys(r.versions)
		half := len(names) / 2
		t := &s.subs[r.kind]
		t.apart = append(t.apart, names[:half:half], names[half:])
		return
	}
	for name, version := range r.versions {
		if why, bad := named[name]; bad {
			s.subs[r.kind].refuse(name, version, why, s.server.now())
		} else {
			s.accept(r.kind, name, version)
		}
	}
}

// refuse notes that the client refused one resource.
func (t *subscription) refuse(name, version, why string, now time.Time) {
	n := nack{version: version, detail: reason(why), at: now, pause: retryFirst}
	if before, ok := t.refused[name]; ok && before.version == version {
		n.pause = min(2*before.pause, retryMax)
	}
	t.refused[name] = n
}

// reason is what Envoy says in one line of bounded length.
func reason(detail string) string {
	line := strings.Join(strings.Fields(detail), " ")
	if len(line) > maxReason {
		line = line[:maxReason/2] + " … " + line[len(line)-maxReason/2:]
	}
	return strings.ToValidUTF8(line, "")
}

// nackHead is what Envoy begins with when it refuses listeners that it could
// read. After it comes, for each, the name, a colon, and what is wrong; the other
// listeners of the response are taken over.
const nackHead = "Error adding/updating listener(s) "

// blame finds, in what Envoy says of a response, which names it refused and why.
// It is empty if Envoy does not say that of each.
func blame[V any](detail string, names map[string]V) map[string]string {
	out := map[string]string{}
	text, ok := strings.CutPrefix(detail, nackHead)
	if !ok {
		return out
	}
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if name, why, ok := strings.Cut(line, ": "); ok {
			if _, sent := names[name]; sent {
				out[name], last = why, name
				continue
			}
		}
		if last != "" && line != "" {
			out[last] += " " + line
		}
	}
	return out
}

// resendRefused has the client sent again, each in a response of its own, the
// resources whose pause after the refusal is over. The caller holds the lock.
func (s *session) resendRefused(now time.Time) {
	for k := range s.subs {
		t := &s.subs[k]
		for _, name := range sortedKeys(t.refused) {
			if n := t.refused[name]; !n.resent && now.Sub(n.at) >= n.pause {
				n.resent = true
				t.refused[name] = n
				t.apart = append(t.apart, []string{name})
			}
		}
	}
}

// settled says whether the client has been sent, and has answered, all there
// is to say: each watch is open, and with it nothing is left to send. The caller
// holds the lock.
func (s *session) settled() bool {
	for k := range s.subs {
		t := &s.subs[k]
		if t.started && (t.request == nil || t.queued > 0 || len(t.apart) > 0) {
			return false
		}
	}
	return len(s.pending) == 0 && s.subs[xds.KindListener].started && (s.subs[xds.KindRoute].started || !s.listening().needRoutes)
}

// listening is what a client's answers about listeners and routes come to.
type listening struct {
	// answered says whether it has accepted or refused all listeners and the
	// routes, as they are now.
	answered bool
	// needRoutes says whether it has a listener that asks for the routes. Without
	// one, as with no pod in pod mode, it doesn't ask.
	needRoutes bool
}

// listening is found anew when an answer or a new snapshot may have changed it:
// it takes as long as there are listeners. The caller holds the lock.
func (s *session) listening() listening {
	if s.listeners != nil {
		return *s.listeners
	}
	p := s.server.current
	l := listening{answered: true}
	for name, spec := range p.Listeners().ByName {
		if spec.Class != model.ClassTCP && s.subs[xds.KindListener].acked[name] != absent {
			l.needRoutes = true
		}
		l.answered = l.answered && s.answered(xds.KindListener, name)
	}
	if l.needRoutes {
		l.answered = l.answered && s.answered(xds.KindRoute, xds.RouteName)
	}
	s.listeners = &l
	return l
}

// answered says whether the client has accepted or refused a resource as it is
// now.
func (s *session) answered(k xds.Kind, name string) bool {
	t, version := &s.subs[k], s.server.current.version(k, name)
	return t.acked[name] == version || s.refuses(k, name, version)
}

// refuses says whether the client has refused this version of a resource.
func (s *session) refuses(k xds.Kind, name, version string) bool {
	n, ok := s.subs[k].refused[name]
	return ok && n.version == version
}

// addRefused adds the resources that the client does not have as they are now,
// because it refused them. The caller holds the lock.
func (s *session) addRefused(into *Refused) {
	p := s.server.current
	for k := range xds.KindCount {
		for _, name := range sortedKeys(s.subs[k].refused) {
			if version := p.version(k, name); version != absent && s.refuses(k, name, version) {
				into.add(k, name, s.subs[k].refused[name].detail, p.Listeners().ByName[name])
			}
		}
	}
}
