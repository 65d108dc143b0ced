// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/flow"
)

const (
	// defaultFlows and maxFlows are how many flows an answer has.
	defaultFlows, maxFlows = 100, 1000
	// keepAlive is how often a stream says that it lives, and writeTimeout how long a
	// client may take what it is sent.
	keepAlive, writeTimeout = 15 * time.Second, 10 * time.Second
	// maxBatch is how many flows are sent before the connection is flushed.
	maxBatch = 200
)

// flows answers with the last flows, or with a stream of them.
func (f *front) flows(w http.ResponseWriter, r *http.Request) {
	q, err := flowQuery(r)
	if err != nil {
		fail(w, statusOf(err), err)
		return
	}
	if q.follow {
		f.follow(w, r, q)
		return
	}
	if !f.requests.take() {
		fail(w, http.StatusServiceUnavailable, errBusy)
		return
	}
	defer f.requests.release()
	if q.id == 0 {
		send(w, http.StatusOK, view.Flows{Items: f.source.Flows.Last(q.last, q.filter), Counts: f.source.Flows.Counts()})
		return
	}
	one, ok := f.source.Flows.Get(q.id)
	if !ok {
		fail(w, http.StatusNotFound, fmt.Errorf("flow %d is not among the last ones", q.id))
		return
	}
	send(w, http.StatusOK, view.Flows{Items: []flow.Flow{one}, Counts: f.source.Flows.Counts()})
}

// flowRequest is which flows are asked for, and how.
type flowRequest struct {
	filter flow.Filter
	follow bool
	last   int
	// id is that of one flow, and after the last that a client has seen; 0 for none.
	id, after uint64
}

func flowQuery(r *http.Request) (flowRequest, error) {
	v := r.URL.Query()
	known := []string{"last", "follow", "id", "namespace", "from", "to", "status", "protocol", "origin", "failed", "slower"}
	for key := range v {
		if !slices.Contains(known, key) {
			return flowRequest{}, fmt.Errorf("unknown query key %q, want one of %s: %w", key, strings.Join(known, ", "), ErrInvalid)
		}
	}
	q := flowRequest{last: defaultFlows}
	var err error
	if q.filter, err = flow.ParseFilter(v); err != nil {
		return q, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if q.follow, err = boolean(v, "follow"); err != nil {
		return q, err
	}
	q.follow = (q.follow || strings.Contains(r.Header.Get("Accept"), "text/event-stream")) && r.Method == http.MethodGet
	if q.follow {
		q.last = 0
	}
	if text := v.Get("last"); text != "" {
		if q.last, err = strconv.Atoi(text); err != nil || q.last < 0 || q.last > maxFlows {
			return q, fmt.Errorf("last %q is not a number from 0 to %d: %w", text, maxFlows, ErrInvalid)
		}
	}
	if text := v.Get("id"); text != "" {
		if q.id, err = strconv.ParseUint(text, 10, 64); err != nil || q.id == 0 {
			return q, fmt.Errorf("id %q is not that of a flow: %w", text, ErrInvalid)
		}
	}
	// A browser that lost the connection says what it has.
	if after, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64); err == nil && q.follow {
		q.after, q.last = after, maxFlows
	}
	return q, nil
}

// follow streams flows as server-sent events until the client, or the agent, goes.
func (f *front) follow(w http.ResponseWriter, r *http.Request, q flowRequest) {
	if !f.followers.take() {
		fail(w, http.StatusServiceUnavailable, fmt.Errorf("%d follow the flows already", maxFollowers))
		return
	}
	defer f.followers.release()
	follower := f.source.Flows.Follow(q.filter)
	defer follower.Close()
	if q.after > f.source.Flows.Counts().Added {
		q.after = 0 // It is of an agent before this one, which counted anew.
	}
	s := &eventStream{front: f, w: w, seen: q.after}
	w.Header().Set("Content-Type", "text/event-stream")
	s.comment("flows follow")
	s.flows(f.source.Flows.Last(q.last, q.filter))
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	for s.flush(follower.Lost()) == nil {
		select {
		case <-r.Context().Done():
			return
		case <-alive.C:
			s.comment("keep-alive")
		case one := <-follower.Flows():
			s.flows([]flow.Flow{one})
			s.flows(waiting(follower, maxBatch))
		}
	}
}

// waiting are the flows that a follower need not wait for, up to most.
func waiting(from *flow.Follower, most int) []flow.Flow {
	var all []flow.Flow
	for len(all) < most {
		select {
		case one := <-from.Flows():
			all = append(all, one)
		default:
			return all
		}
	}
	return all
}

// eventStream writes server-sent events.
type eventStream struct {
	front *front
	w     http.ResponseWriter
	buf   bytes.Buffer
	// seen is the last flow that the client has: the first may come twice, as one of the
	// last and as a new one. lost is what it was told that it lost.
	seen, lost uint64
}

// comment is what clients ignore.
func (s *eventStream) comment(text string) { fmt.Fprintf(&s.buf, ": %s\n\n", text) }

func (s *eventStream) flows(all []flow.Flow) {
	for i := range all {
		if all[i].ID > s.seen {
			s.seen = all[i].ID
			s.event("flow", &all[i], all[i].ID)
		}
	}
}

func (s *eventStream) event(name string, data any, id uint64) {
	text, err := json.Marshal(data)
	if err != nil {
		s.comment("a flow can't be written as JSON")
		return
	}
	fmt.Fprintf(&s.buf, "event: %s\n", name)
	if id > 0 {
		fmt.Fprintf(&s.buf, "id: %d\n", id)
	}
	fmt.Fprintf(&s.buf, "data: %s\n\n", text)
}

// flush sends what is written, and how many flows were lost if that is news.
func (s *eventStream) flush(lost uint64) error {
	if lost != s.lost {
		s.lost = lost
		s.event("lost", view.Lost{Lost: lost}, 0)
	}
	if err := s.front.deadline(s.w, writeTimeout); err != nil {
		return err
	}
	if _, err := s.buf.WriteTo(s.w); err != nil {
		return err
	}
	return http.NewResponseController(s.w).Flush()
}
