// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/xds"
)

// TestRequestRate: a pod that makes more requests than it may is answered 429, until
// it has waited; all listeners count together, the client's own words don't matter,
// and no other pod notices.
func TestRequestRate(t *testing.T) {
	// It answers with the names of the request's headers.
	h2Server(t, "10.244.0.1:8080", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			fmt.Fprintln(w, name)
		}
	}))
	services := []service{
		{name: "web", frontend: "10.96.1.10:80", backends: []string{"10.244.0.1:8080"}},
		{name: "undeclared", frontend: "10.96.3.10:80", backends: []string{"10.244.0.1:8080"}},
	}
	limited := func(c *xds.Config) { c.MaxRequestRate = requestRate }
	t.Run("host mode", func(t *testing.T) {
		newFixtureWith(t, nodeOf(t, services...), setup{change: limited})
		from := func(ip string) dialer { return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}} }
		checkRate(t, from("10.244.0.2"), from("10.244.0.3"))
	})
	t.Run("pod mode", func(t *testing.T) {
		a, b := newPod(t, "pod-a", 2), newPod(t, "pod-b", 3)
		newFixtureWith(t, nodeOf(t, services...), setup{pods: []*pod{a, b}, change: limited})
		checkRate(t, a, b)
	})
}

const requestRate = 4

func checkRate(t *testing.T, pod, other dialer) {
	t.Helper()
	for version := 1; version <= 2; version++ {
		client, stranger := rater{mode{dialer: pod}.client()}, rater{mode{dialer: other}.client()}
		if version == 2 {
			client, stranger = rater{mode{dialer: pod}.h2Client()}, rater{mode{dialer: other}.h2Client()}
		}
		// Whatever was served before, there is one more each quarter of a second.
		eventually(t, 5*time.Second, func() error { return fromBackend(client.ask("10.96.1.10:80", "")) })
		begin, answers := time.Now(), map[int]int{}
		for i := range 5 * requestRate {
			address := []string{"10.96.1.10:80", "10.96.3.10:80"}[i%2]
			r := client.ask(address, fmt.Sprintf("192.0.2.%d", i))
			answers[r.code]++
			if r.code == http.StatusTooManyRequests && (r.grpc != "" || !strings.Contains(r.body, "rate_limited")) {
				t.Errorf("HTTP/%d: the refusal is %+v", version, r)
			}
		}
		most := requestRate + int(time.Since(begin).Seconds()*requestRate) + 1
		if answers[http.StatusOK] > most || answers[http.StatusOK]+answers[http.StatusTooManyRequests] != 5*requestRate {
			t.Errorf("HTTP/%d: answers %v, want at most %d to be served and all others to be refused", version, answers, most)
		}
		if err := fromBackend(stranger.ask("10.96.1.10:80", "")); err != nil {
			t.Errorf("HTTP/%d: another pod: %v", version, err)
		}
		if version == 2 {
			eventually(t, 5*time.Second, func() error {
				if r := client.ask("10.96.1.10:80", "", "Content-Type", "application/grpc"); r.code != http.StatusOK || r.grpc != "8" {
					return fmt.Errorf("the refusal of a gRPC call is %+v", r)
				}
				return nil
			})
		}
		eventually(t, 5*time.Second, func() error { return fromBackend(client.ask("10.96.3.10:80", "")) })
	}
}

// rateAnswer is an answer: of the backend, the names of the request's headers.
type rateAnswer struct {
	code       int
	body, grpc string
	err        error
}

func fromBackend(r rateAnswer) error {
	if r.code != http.StatusOK || r.grpc != "" || strings.Contains(strings.ToLower(r.body), "nodevoy") || !strings.Contains(r.body, "User-Agent") {
		return fmt.Errorf("the answer is %+v, want one of the backend, to which no private header went", r)
	}
	return nil
}

type rater struct{ *http.Client }

// ask makes a request that claims to be forwarded for somebody, if that isn't empty,
// with these further headers.
func (c rater) ask(address, claim string, headers ...string) rateAnswer {
	request, err := http.NewRequest(http.MethodPost, "http://"+address+"/", http.NoBody)
	if err != nil {
		return rateAnswer{err: err}
	}
	if claim != "" {
		request.Header.Set("X-Forwarded-For", claim)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := c.Do(request)
	if err != nil {
		return rateAnswer{err: err}
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return rateAnswer{response.StatusCode, string(text), response.Header.Get("Grpc-Status"), err}
}
