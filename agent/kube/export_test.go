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
			list:  300 * time.Millisecond, bookmark: 200 * time.Millisecond, steady: 100 * time.Millisecond,
			absent: 50 * time.Millisecond,
		}
	}
	s.recorder.check = 10 * time.Millisecond
}

// RenewInterval is how often Events are renewed.
const RenewInterval = renewInterval
