// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/nodevoy/nodevoy/agent/kinds"
)

func TestWatchMetrics(t *testing.T) {
	health := []kinds.Health{{Kind: "Service", Synced: true}, {Kind: "Pod", Synced: true, Err: errors.New("forbidden")}, {Kind: "Node"}}
	const want = `
# HELP nodevoy_watch_failing 1 while objects of this kind can't be read or followed; what was read before stays in force.
# TYPE nodevoy_watch_failing gauge
nodevoy_watch_failing{kind="Node"} 0
nodevoy_watch_failing{kind="Pod"} 1
nodevoy_watch_failing{kind="Service"} 0
# HELP nodevoy_watch_synced 1 once every object of this kind has been read.
# TYPE nodevoy_watch_synced gauge
nodevoy_watch_synced{kind="Node"} 0
nodevoy_watch_synced{kind="Pod"} 1
nodevoy_watch_synced{kind="Service"} 1
`
	c := newWatchCollector(func() []kinds.Health { return health })
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
