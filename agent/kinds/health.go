// SPDX-License-Identifier: Apache-2.0

package kinds

import "time"

// Health is how the reading of one kind goes.
type Health struct {
	Kind string
	// Synced says whether every object of the kind has been read.
	Synced bool
	// Absent says that the API server does not serve this optional kind.
	Absent bool
	// Err is why the kind can't be read or followed now, and Since when that
	// began; nil and zero while it can. What was read before stays in force.
	Err   error
	Since time.Time
}
