// SPDX-License-Identifier: Apache-2.0

package objects

import "time"

// RereadEvery makes the source look unasked more often than users need.
func (s *Source) RereadEvery(every time.Duration) { s.reread = every }
