// SPDX-License-Identifier: Apache-2.0

package apply

import "context"

// RemoveHooks removes our jumps and chains of one backend and family.
func RemoveHooks(ctx context.Context, a *Applier, t Tables) error {
	return a.removeHooks(ctx, t, nil)
}

// FullCheck is every how many calls Drift lists the members of large sets.
const FullCheck = fullCheck
