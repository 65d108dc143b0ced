// SPDX-License-Identifier: Apache-2.0

package server

import "github.com/nodevoy/nodevoy/xds"

// Standing is how far the connected Envoys are with one resource. With two of them, it
// is that of the one which is behind.
type Standing struct {
	// Asked says that an Envoy wants it, Sent that it was sent the present version, and
	// Acked that it accepted that.
	Asked, Sent, Acked bool
	// Refused is why an Envoy refused the present version; empty if it did not.
	Refused string
}

// Standing is that of the resource of this kind and name.
func (s *Server) Standing(k xds.Kind, name string) Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Standing{}
	for sess := range s.sessions {
		t := &sess.subs[k]
		if _, named := t.names[name]; !named && !t.wildcard {
			continue
		}
		// Only now, as any name can be asked about: it makes the resource.
		version := s.current.version(k, name)
		if version == absent {
			continue
		}
		sent, acked := t.sent[name] == version, t.acked[name] == version
		if st.Asked {
			sent, acked = sent && st.Sent, acked && st.Acked
		}
		st.Asked, st.Sent, st.Acked = true, sent, acked
		if n, is := t.refused[name]; is && n.version == version {
			st.Refused = n.detail
		}
	}
	return st
}
