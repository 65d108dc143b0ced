// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/server"
)

// viewXDS is what Envoy has asked for, and how it answered.
func (s *State) viewXDS(streams []server.Stream, q view.Query) view.XDS {
	out := view.XDS{Envoy: s.orStarting().viewEnvoy(), Streams: []view.Stream{}, List: view.List[view.Resource]{Items: []view.Resource{}}}
	type keyed struct {
		key      string
		stream   int
		resource *server.StreamResource
	}
	var found []keyed
	for i := range streams {
		stream := view.Stream{Since: streams[i].Since, Version: streams[i].Version.String(), Unanswered: streams[i].Pending, Kinds: map[string]view.ResourceCount{}}
		for k := range xds.KindCount {
			stream.Kinds[k.String()] = view.ResourceCount{}
		}
		for j := range streams[i].Resources {
			r := &streams[i].Resources[j]
			kind, state := r.Kind.String(), stateOf(r)
			count := stream.Kinds[kind]
			count.Subscribed++
			switch state {
			case stateAccepted:
				count.Accepted++
			case stateRefused:
				count.Refused++
			}
			stream.Kinds[kind] = count
			key := fmt.Sprintf("%d%s%s%s%s", i, keySeparator, kind, keySeparator, r.Name)
			if key > q.After && (q.Kind == "" || q.Kind == kind) && (!q.Refused || state == stateRefused) {
				found = append(found, keyed{key, i, r})
			}
		}
		out.Streams = append(out.Streams, stream)
	}
	slices.SortFunc(found, func(a, b keyed) int { return strings.Compare(a.key, b.key) })
	if len(found) > q.Limit {
		found = found[:q.Limit]
		out.Continue = found[q.Limit-1].key
	}
	for _, one := range found {
		out.Items = append(out.Items, viewResource(one.stream, one.resource))
	}
	return out
}

// The states of a resource.
const (
	stateRequested = "requested"
	stateSent      = "sent"
	stateAccepted  = "accepted"
	stateRefused   = "refused"
	stateAbsent    = "absent"
)

func stateOf(r *server.StreamResource) string {
	switch {
	case r.Requested:
		return stateRequested
	case r.Refused != "":
		return stateRefused
	case r.Sent == "":
		return stateAbsent
	case r.Answered:
		return stateAccepted
	}
	return stateSent
}

func viewResource(stream int, r *server.StreamResource) view.Resource {
	out := view.Resource{
		Stream: stream, Kind: r.Kind.String(), Name: r.Name, State: stateOf(r), Version: r.Sent,
		Why: r.Refused, RefusedAt: moment(r.RefusedAt),
	}
	if r.Accepted != r.Sent {
		out.Accepted = r.Accepted
	}
	return out
}
