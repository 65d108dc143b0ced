// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/envoystats"
	"github.com/nodevoy/nodevoy/xds"
)

// TestCodesAreBounded: whatever a server answers, Envoy counts it under one of few
// codes, and each of them as what it is.
func TestCodesAreBounded(t *testing.T) {
	statusServer(t, "10.244.0.1:8080")
	p := newPod(t, "pod-a", 2)
	r := newFixtureWith(t, nodeOf(t, service{"web", "10.96.1.10:80", []string{"10.244.0.1:8080"}}), setup{pods: []*pod{p}})
	client, want := mode{dialer: p}.client(), map[string]int{}
	for code := 200; code < 1000; code++ {
		ask(t, client, "10.96.1.10:80", code)
		as := strconv.Itoa(code)
		if !slices.Contains(xds.Codes(), as) {
			as = as[:1] + "xx"
		}
		if code >= 600 {
			as = "other"
		}
		want[as]++
	}
	// What is not HTTP has no Service.
	if answer, err := p.say("10.96.1.10:80", "this is not HTTP\r\n\r\n"); err != nil || !strings.Contains(answer, " 400 ") {
		t.Errorf("bytes that are not HTTP are answered %q, %v", answer, err)
	}
	var got map[string]int
	count := regexp.MustCompile(`(?m)^envoy_nodevoy_requests\{port="shop/.*code="(\w+)".*\} (\d+)$`)
	eventually(t, 5*time.Second, func() error {
		got = map[string]int{}
		for _, line := range count.FindAllStringSubmatch(r.ask(envoystats.Path()), -1) {
			n, err := strconv.Atoi(line[2])
			if err != nil {
				return err
			}
			got[line[1]] += n
		}
		if d := cmp.Diff(want, got); d != "" {
			return fmt.Errorf("requests by code (-want +got):\n%s", d)
		}
		return nil
	})
	if !strings.Contains(r.ask(envoystats.Path()), `envoy_nodevoy_requests{port="",code="400"`) {
		t.Error("a request without a Service is not counted")
	}
	for code := range got {
		if !slices.Contains(xds.Codes(), code) {
			t.Errorf("code %q is none of %v", code, xds.Codes())
		}
	}
}

// TestIdleCountsAreForgotten: what has counted nothing for two intervals takes no
// memory of Envoy any more.
func TestIdleCountsAreForgotten(t *testing.T) {
	statusServer(t, "10.244.0.1:8080")
	r := newFixtureWith(t, nodeOf(t,
		service{"web", "10.96.1.10:80", []string{"10.244.0.1:8080"}}, service{"idle", "10.96.1.11:80", []string{"10.244.0.1:8080"}},
	), setup{replace: strings.NewReplacer("stats_eviction_interval: 3600s", "stats_eviction_interval: 1s\nstats_flush_interval: 1s")})
	client := mode{dialer: &net.Dialer{}}.client()
	ask(t, client, "10.96.1.11:80", http.StatusOK)
	shown := func(name string) bool {
		return strings.Contains(r.ask(envoystats.Path()), `envoy_nodevoy_requests{port="shop/`+name+`/main"`)
	}
	eventually(t, 5*time.Second, func() error {
		if !shown("idle") {
			return errors.New("a request is not counted")
		}
		return nil
	})
	eventually(t, 10*time.Second, func() error {
		ask(t, client, "10.96.1.10:80", http.StatusOK)
		if shown("idle") {
			return errors.New("an idle count is there")
		}
		return nil
	})
	if !shown("web") {
		t.Error("a count is gone that was just added to")
	}
}

// statusServer answers with the status that the path says.
func statusServer(t *testing.T, address string) {
	t.Helper()
	h2Server(t, address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.URL.Path[1:])
		if err != nil {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	}))
}

// ask fails the test unless the answer has this status.
func ask(t *testing.T, client *http.Client, address string, code int) {
	t.Helper()
	resp, err := client.Get(fmt.Sprintf("http://%s/%d", address, code))
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != code {
		t.Fatalf("%s answers %s, %v; want %d", address, resp.Status, err, code)
	}
}
