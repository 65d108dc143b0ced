// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/pods"
	"github.com/nodevoy/nodevoy/xds/server"
)

func TestHealth(t *testing.T) {
	now := time.Now()
	connected := server.Status{Connected: true}
	inPods := func(blocked ...string) *State {
		s := &State{At: now, Phase: PhaseRedirecting, Mode: plan.PodMode, Envoy: connected, Plan: &plan.Plan{}, Pods: map[string]pods.State{"engaged": {Redirecting: true}}}
		for i, why := range blocked {
			uid := strconv.Itoa(i)
			if why == "old listener" {
				uid = "engaged"
			}
			s.Plan.Pods = append(s.Plan.Pods, plan.PodPlan{UID: uid, Blocked: why, Terminating: why == "ends"})
		}
		return s
	}
	for name, tt := range map[string]struct {
		state                *State
		ready, live, because string
	}{
		"nothing yet":               {nil, "503", "200", "no round yet"},
		"redirecting":               {&State{At: now, Phase: PhaseRedirecting, Envoy: connected}, "200", "200", ""},
		"no Envoy":                  {&State{At: now, Phase: PhaseWaiting, Reason: "no Envoy", PendingSince: now.Add(-time.Hour)}, "503", "200", "no Envoy"},
		"failing":                   {&State{At: now, Phase: PhaseRedirecting, ApplyErr: "no room", Envoy: connected}, "503", "200", "no room"},
		"Envoy is deaf":             {&State{At: now, Phase: PhaseWaiting, Reason: "unanswered", Envoy: connected, PendingSince: now.Add(-time.Hour)}, "503", "200", "unanswered"},
		"a change waits":            {&State{At: now, Phase: PhaseRedirecting, Reason: "unanswered", Envoy: connected, PendingSince: now.Add(-time.Hour)}, "503", "200", "a change has waited for 1h0m0s: unanswered"},
		"can't tell":                {&State{At: now, Phase: PhaseRedirecting, CheckErr: "no answer by the kernel", Envoy: connected}, "503", "200", "no answer by the kernel"},
		"loop does not move":        {&State{At: now.Add(-time.Hour), Phase: PhaseRedirecting, Envoy: connected}, "503", "503", "not moved"},
		"a change just came":        {&State{At: now, Phase: PhaseRedirecting, Envoy: connected, PendingSince: now}, "200", "200", ""},
		"one pod of two is refused": {inPods("port in use", ""), "200", "200", ""},
		"the only pod is refused":   {inPods("port in use", "ends"), "200", "200", ""},
		"all pods are refused":      {inPods("no permission", "port in use", "ends"), "503", "200", "all 2 enrolled pods: no permission"},
		"refused, one goes on":      {inPods("no permission", "old listener", "port in use"), "200", "200", ""},
		"superseded stands by":      {&State{At: now, Phase: PhaseSuperseded, Reason: "newer", Envoy: connected}, "200", "200", ""},
	} {
		t.Run(name, func(t *testing.T) {
			state := &atomic.Pointer[State]{}
			state.Store(tt.state)
			h := (&healthServer{state: state, stuckAfter: time.Minute, gatherer: prometheus.NewRegistry()}).handler()
			said := ""
			for path, want := range map[string]string{"/readyz": tt.ready, "/healthz": tt.live, "/metrics": "200"} {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
				if got := w.Result().Status; !strings.HasPrefix(got, want) {
					t.Errorf("%s answered %s, want %s", path, got, want)
				}
				said += w.Body.String()
			}
			if !strings.Contains(said, tt.because) {
				t.Errorf("answers %q don't say %q", said, tt.because)
			}
		})
	}
}
