// SPDX-License-Identifier: Apache-2.0

package agent

import "github.com/nodevoy/nodevoy/agent/debug/view"

// shown is all that `nodevoy status` shows of a state; all is for every frontend, else
// for those in use.
func (s *State) shown(all bool) view.Status {
	every := view.Query{Limit: 1 << 20, InUse: !all}
	frontends, err := s.viewFrontends(every)
	if err != nil {
		panic(err) // The query is none that can fail.
	}
	return view.Status{Summary: s.summary(), Pods: s.viewPods(every).Items, Frontends: frontends.Items}
}
