// SPDX-License-Identifier: Apache-2.0

package server

import (
	"slices"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

const (
	// retryFirst and retryMax are how long after a refusal a resource is sent
	// again: the cause, such as a port in use, may be gone. The pause doubles with
	// each refusal of the same version.
	retryFirst, retryMax = 5 * time.Second, time.Minute
	// maxReason bounds, in bytes, the reason of a refusal: Envoy may quote the
	// whole resource in the middle of it.
	maxReason = 400
)

// nack is the refusal of one version of a resource: the reason and the time.
type nack struct {
	version, detail string
	at              time.Time
	// pause is how long after that it is sent again; resent is set once it is.
	pause  time.Duration
	resent bool
}

// accept records that the client uses a resource, or no longer has it.
func (s *session) accept(k xds.Kind, name, version string) {
	t := &s.subs[k]
	t.acked[name] = version
	delete(t.refused, name)
	if _, named := t.names[name]; !named && version == absent && t.sent[name] == absent {
		// The listener of a pod that is gone, under a name that is never used again.
		delete(t.acked, name)
		s.forget(k, name)
	}
}

// nacked records that the client refused a response. If it doesn't say which of
// several resources it refused, they are sent again in two halves, until each is
// accepted or refused by itself.
func (s *session) nacked(r response, detail string) {
	t := &s.subs[r.kind]
	named := namedErrors(detail, r.versions)
	names := sortedKeys(r.versions)
	if len(names) == 1 {
		named = map[string]string{names[0]: detail}
	}
	if len(named) == 0 {
		half := len(names) / 2
		t.apart = append(t.apart, names[:half:half], names[half:])
		return
	}
	for name, version := range r.versions {
		why, bad := named[name]
		if !bad {
			s.accept(r.kind, name, version)
			continue
		}
		n := nack{version: version, detail: reason(why), at: s.server.now(), pause: retryFirst}
		if before, ok := t.refused[name]; ok && before.version == version {
			n.pause = min(2*before.pause, retryMax)
		}
		t.refused[name] = n
	}
}

// reason is Envoy's error as one line of limited length.
func reason(detail string) string {
	line := strings.Join(strings.Fields(detail), " ")
	if len(line) > maxReason {
		line = line[:maxReason/2] + " … " + line[len(line)-maxReason/2:]
	}
	return strings.ToValidUTF8(line, "")
}

// listenerErrors is how Envoy's error starts when it refuses some listeners of a
// response and uses the others. For each, the name, a colon and the error follow.
const listenerErrors = "Error adding/updating listener(s) "

// namedErrors finds in Envoy's error the refused names, each with its own error.
// It is empty if Envoy doesn't name them.
func namedErrors[V any](detail string, names map[string]V) map[string]string {
	out := map[string]string{}
	text, ok := strings.CutPrefix(detail, listenerErrors)
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

// resendRefused queues, each in a response of its own, the resources whose pause
// after the refusal is over. The caller holds the lock.
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

// begun says whether the client follows what every one has to, listeners and, if they
// need any, routes. The caller holds the lock.
func (s *session) begun() bool {
	return s.subs[xds.KindListener].started && (s.subs[xds.KindRoute].started || !s.listening().needRoutes)
}

// settled says whether the client has been sent, and has answered, everything:
// each watch is open, and nothing is left to send. The caller holds the lock.
func (s *session) settled() bool {
	for k := range s.subs {
		t := &s.subs[k]
		if t.started && (t.request == nil || len(t.composed) > 0 || len(t.apart) > 0) {
			return false
		}
	}
	return len(s.pending) == 0 && s.begun()
}

// upToDate says whether the client has been sent, and has answered, everything but
// what it has asked for since the last publication, such as the clusters of a
// Service that a pod is the first to call. The caller holds the lock.
func (s *session) upToDate() bool {
	for k := range s.subs {
		t := &s.subs[k]
		if t.started && (t.upTo != s.server.publications || slices.Contains(t.composed, true) || len(t.apart) > 0) {
			return false
		}
		for _, d := range t.due {
			if !d.asked {
				return false
			}
		}
	}
	for _, r := range s.pending {
		if r.changing {
			return false
		}
	}
	return s.begun()
}

// listening summarizes a client's answers about listeners and routes.
type listening struct {
	// answered says whether it has accepted or refused all listeners and the
	// routes, as they are now.
	answered bool
	// needRoutes says whether it has a listener that needs the routes. Without
	// one, as with no pod in pod mode, it doesn't request them.
	needRoutes bool
}

// listening is computed again after an answer or a new snapshot: its cost grows
// with the number of listeners. The caller holds the lock.
func (s *session) listening() listening {
	if s.listeners != nil {
		return *s.listeners
	}
	p := s.server.current
	l := listening{answered: true}
	for name, spec := range p.Listeners().ByName {
		if spec.Class != model.ClassTCP && s.subs[xds.KindListener].acked[name] != absent {
			l.needRoutes = true
			l.answered = l.answered && s.answered(xds.KindRoute, spec.RouteName(s.server.cfg))
		}
		l.answered = l.answered && s.answered(xds.KindListener, name)
	}
	s.listeners = &l
	return l
}

// answered says whether the client has accepted or refused the current version of
// a resource.
func (s *session) answered(k xds.Kind, name string) bool {
	t, version := &s.subs[k], s.server.current.version(k, name)
	n, refused := t.refused[name]
	return t.acked[name] == version || refused && n.version == version
}

// addRefused adds the resources that the client does not have as they are now,
// because it refused them. The caller holds the lock.
func (s *session) addRefused(into *Refused) {
	p := s.server.current
	for k := range xds.KindCount {
		for _, name := range sortedKeys(s.subs[k].refused) {
			n, version := s.subs[k].refused[name], p.version(k, name)
			if version != absent && n.version == version {
				into.add(k, name, n.detail, p.Listeners().ByName[name])
			}
		}
	}
}
