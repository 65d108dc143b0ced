// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Hurry has the source wait for nothing longer than it must; absent kinds are
// asked for as often as client-go's back-off allows.
func (s *Source) Hurry() {
	for _, f := range s.feeds {
		f.patience = patience{
			retry: wait.Backoff{Duration: 10 * time.Millisecond, Cap: 50 * time.Millisecond, Steps: 3, Factor: 2},
			list:  300 * time.Millisecond, bookmark: 200 * time.Millisecond, steady: 100 * time.Millisecond, watch: time.Hour,
			absent: 50 * time.Millisecond,
		}
	}
	s.reachability.answer = Answer
	s.recorder.check = 10 * time.Millisecond
}

// EndWatchesAfter has watches last no longer than that.
func (s *Source) EndWatchesAfter(d time.Duration) {
	for _, f := range s.feeds {
		f.patience.watch = d
	}
}

// Answer is how long a watch may take to begin once the source hurries.
const Answer = 500 * time.Millisecond

// RenewInterval is how often Events are renewed.
const RenewInterval = renewInterval
