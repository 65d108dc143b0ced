// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"errors"
	"sync"
	"time"

	"github.com/nodevoy/nodevoy/agent/kinds"
)

// operation is what is done to read a kind.
type operation int

// The operations, each proving more than the one before.
const (
	opList operation = iota
	opWatch
	// opFollow is a watch that goes on.
	opFollow
)

func (o operation) String() string { return [...]string{"list", "watch", "follow"}[o] }

// errNoList is told of a list that neither arrives nor fails.
var errNoList = errors.New("the API server has not sent the whole list")

// status is how the reading of one kind goes. Safe for concurrent use.
type status struct {
	mu sync.Mutex
	// started is when reading began.
	started time.Time
	// err is the last failure since reading last worked, of the operation op,
	// and since when the first one was.
	err   error
	op    operation
	since time.Time
	// notServed is the answer about an optional kind that is not served, askAt
	// when to ask again.
	notServed error
	askAt     time.Time
	// listOnlyUntil is when lists may be streamed again.
	listOnlyUntil time.Time
}

func (s *status) start(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started = now
}

// failed notes a failure and says whether it is another than the last one.
func (s *status) failed(op operation, err error, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.err == nil || s.err.Error() != err.Error()
	if s.err == nil {
		s.since = now
	}
	s.err, s.op, s.notServed = err, op, nil
	return news
}

// succeeded notes that the operation worked, and says whether that ends a
// failure. A list proves nothing about a watch that failed.
func (s *status) succeeded(op operation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notServed = nil
	if s.err == nil || op < s.op {
		return false
	}
	s.err, s.since = nil, time.Time{}
	return true
}

// setAbsent notes that the kind is not served, and says whether that is new.
func (s *status) setAbsent(answer error, askAt time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.notServed == nil
	s.notServed, s.askAt = answer, askAt
	s.err, s.since = nil, time.Time{}
	return news
}

// absentErr is the answer about a kind that is not served until it is time to
// ask again.
func (s *status) absentErr(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.notServed != nil && now.Before(s.askAt) {
		return s.notServed
	}
	return nil
}

func (s *status) setListOnly(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listOnlyUntil = until
}

func (s *status) listOnly(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.listOnlyUntil)
}

// health is all of it; a kind that is not read after the given time is failing.
func (s *status) health(now time.Time, synced bool, listTime time.Duration) kinds.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := kinds.Health{Synced: synced, Absent: s.notServed != nil, Err: s.err, Since: s.since}
	if !synced && s.err == nil && !s.started.IsZero() && now.Sub(s.started) >= listTime {
		h.Err, h.Since = errNoList, s.started
	}
	return h
}
