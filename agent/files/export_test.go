// SPDX-License-Identifier: Apache-2.0

package files

import "time"

// RereadEvery makes the source read its directory without an event at another
// interval.
func (s *Source) RereadEvery(every time.Duration) { s.reread = every }
