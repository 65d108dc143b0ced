// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

// retryAfter is how long after a listener was refused it is sent again.
const retryAfter = 10 * time.Second

// nack is a resource that the client refused: in which version, with which
// words and when.
type nack struct {
	version, detail string
	at              time.Time
}

// accept notes that the client has taken over a resource, or that it is gone.
func (t *subscription) accept(name, version string) {
	t.acked[name] = version
	delete(t.refused, name)
	if _, named := t.names[name]; !named && version == absent && t.sent[name] == absent {
		// Nobody asked for this name, and nobody will again: pods come and go.
		delete(t.acked, name)
		delete(t.sent, name)
	}
}

// refuse notes that the client refused a response of listeners. It has taken
// over those that it does not complain of.
func (t *subscription) refuse(r response, detail string, now time.Time) {
	blamed := blame(detail, r.versions)
	for name, version := range r.versions {
		if why, bad := blamed[name]; bad {
			t.refused[name] = nack{version: version, detail: why, at: now}
		} else {
			t.accept(name, version)
		}
	}
}

// nackHead is what Envoy begins with when it refuses listeners. After it
// comes, for each, the name, a colon, and what is wrong.
const nackHead = "Error adding/updating listener(s) "

// blame finds, in what Envoy says, which names it refused and why. If it names
// none of them, it is taken to mean all.
func blame[V any](detail string, names map[string]V) map[string]string {
	out := map[string]string{}
	last := ""
	for line := range strings.Lines(strings.TrimPrefix(detail, nackHead)) {
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
	if len(out) == 0 {
		for name := range names {
			out[name] = detail
		}
	}
	return out
}

// retry has the client told again of listeners that it refused a while ago. The
// caller holds the lock.
func (s *session) retry(now time.Time) {
	t := &s.subs[xds.KindListener]
	for name, r := range t.refused {
		if now.Sub(r.at) >= retryAfter {
			r.at = now
			t.refused[name] = r
			t.due[name] = struct{}{}
		}
	}
}

// settled says whether the client has been sent, and has answered, all there
// is to say. An open watch has nothing left to send: only a response on its way
// closes one. The caller holds the lock.
func (s *session) settled() bool {
	for k := range s.subs {
		if s.subs[k].queued > 0 {
			return false
		}
	}
	return len(s.pending) == 0 && s.subs[xds.KindListener].started && (s.subs[xds.KindRoute].started || !s.needsRoutes())
}

// accepted says whether the client has accepted all listeners and the routes
// as they are now. In pod mode a refused listener concerns its pod alone, and
// is as good as an accepted one. The caller holds the lock.
func (s *session) accepted() bool {
	p, t := s.server.current, &s.subs[xds.KindListener]
	for _, name := range p.Listeners.Names {
		version := p.resource(xds.KindListener, name).Version
		if t.acked[name] != version && (!p.cfg.PodMode || t.refused[name].version != version) {
			return false
		}
	}
	return !s.needsRoutes() || s.subs[xds.KindRoute].acked[xds.RouteName] == p.resource(xds.KindRoute, xds.RouteName).Version
}

// needsRoutes says whether the client has a listener that asks for the routes.
// Without one, as with no pod in pod mode, it doesn't ask.
func (s *session) needsRoutes() bool {
	p := s.server.current
	if !p.cfg.PodMode {
		return true
	}
	for name, spec := range p.Listeners.ByName {
		if spec.Class != model.ClassTCP && s.subs[xds.KindListener].acked[name] != absent {
			return true
		}
	}
	return false
}

// refusals adds the listeners that the client does not have as they are now,
// because it refused them. The caller holds the lock.
func (s *session) refusals(into map[string]string) {
	p := s.server.current
	for name, r := range s.subs[xds.KindListener].refused {
		if now := p.resource(xds.KindListener, name); now != nil && now.Version == r.version {
			into[name] = r.detail
		}
	}
}

// envoyVersion is a version of Envoy.
type envoyVersion struct {
	known               bool
	major, minor, patch uint32
}

// versionOf reads the version from what Envoy says of itself; not known if it
// does not.
func versionOf(node *corev3.Node) envoyVersion {
	v := node.GetUserAgentBuildVersion().GetVersion()
	return envoyVersion{known: v != nil, major: v.GetMajorNumber(), minor: v.GetMinorNumber(), patch: v.GetPatch()}
}

// lower is the lower of two versions, of those that are known.
func (v envoyVersion) lower(w envoyVersion) envoyVersion {
	if !v.known || w.known && cmp.Or(cmp.Compare(w.major, v.major), cmp.Compare(w.minor, v.minor), cmp.Compare(w.patch, v.patch)) < 0 {
		return w
	}
	return v
}

// String is the version as releases are called, and empty if it is not known.
func (v envoyVersion) String() string {
	if !v.known {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch)
}
