// SPDX-License-Identifier: Apache-2.0

package ask

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// TestStatusReadsAllParts of the lists, and asks for frontends in use unless it is to have
// all.
func TestStatusReadsAllParts(t *testing.T) {
	var asked []string
	c := served(t, "", func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		at, _ := strconv.Atoi(r.URL.Query().Get("continue"))
		next := ""
		if at < 2 {
			next = strconv.Itoa(at + 1)
		}
		var body any = view.Summary{Node: "node-a", Limits: []view.Limit{{What: "w"}}}
		switch r.URL.Path {
		case "/v1/pods":
			body = view.List[view.Pod]{Items: []view.Pod{{Name: fmt.Sprint("pod-", at)}}, Continue: next}
		case "/v1/frontends":
			body = view.List[view.Frontend]{Items: []view.Frontend{{Address: fmt.Sprint(at)}}, Continue: next}
		}
		if err := json.NewEncoder(w).Encode(body); err != nil {
			t.Error(err)
		}
	})
	s, err := c.Status(t.Context(), false)
	if err != nil || s.Node != "node-a" || len(s.Pods) != 3 || len(s.Frontends) != 3 || s.Frontends[2].Address != "2" || s.Limits != nil {
		t.Errorf("status %+v, %v", s, err)
	}
	if last := asked[len(asked)-1]; last != "/v1/frontends?continue=2&inUse=true" {
		t.Errorf("asked for %s", last)
	}
	if s, err := c.Status(t.Context(), true); err != nil || len(s.Limits) != 1 || asked[len(asked)-1] != "/v1/frontends?continue=2" {
		t.Errorf("all: %d limits, asked for %s, %v", len(s.Limits), asked[len(asked)-1], err)
	}
}

// TestErrorsAreTheAgents words.
func TestErrorsAreTheAgents(t *testing.T) {
	c := served(t, "", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = fmt.Fprint(w, map[string]string{"/json": `{"error":"no tea"}`, "/text": "no coffee\n"}[r.URL.Path])
	})
	for path, want := range map[string]string{"/json": "418 I'm a teapot: no tea", "text": "418 I'm a teapot: no coffee"} {
		if _, err := c.Open(t.Context(), path, nil); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if _, err := c.SetLogLevel(t.Context(), nil); err == nil {
		t.Error("a failure to change levels back is none")
	}
}
