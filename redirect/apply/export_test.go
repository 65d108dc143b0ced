// SPDX-License-Identifier: Apache-2.0

package apply

import "context"

// RemoveHooks removes our jumps and chains of some tables.
func RemoveHooks(ctx context.Context, a *Applier, t Tables) error {
	return a.removeHooks(ctx, t, nil)
}
