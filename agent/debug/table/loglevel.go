// SPDX-License-Identifier: Apache-2.0

package table

import (
	"cmp"
	"fmt"
	"time"

	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// LogLevel says in a line what is logged.
func LogLevel(l view.LogLevel, now time.Time) string {
	line := fmt.Sprintf("agent %s, Envoy %s", Printable(l.Agent), Printable(cmp.Or(l.Envoy, oneLine(l.EnvoyError))))
	if l.Until != nil {
		line += fmt.Sprintf(", for %s more", age(now, *l.Until))
	}
	return line
}
