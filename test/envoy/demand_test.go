// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nodevoy/nodevoy/xds"
)

// TestOnDemand: a frontend costs nothing before it is used, and little then.
func TestOnDemand(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	db := tcpServer(t, "10.244.0.2:5000", "db-0")
	node := nodeOf(t,
		service{"web", "10.96.1.10:80", []string{web}},
		service{"db", "10.96.2.10:5000", []string{db}},
		service{"auto", "10.96.3.10:80", []string{web}},
		service{"autodb", "10.96.3.11:5000", []string{db}},
		service{"idle", "10.96.1.99:80", []string{web}})
	r := newFixture(t, node)
	if got := r.clusters(); len(got) != 0 {
		t.Fatalf("clusters before any request: %v", got)
	}
	for _, c := range []struct {
		form, address string
		use           func(*testing.T, string)
	}{
		{http1, "10.96.1.10:80", func(t *testing.T, a string) { mustGet(t, a, "web-0") }},
		{"tcp ", "10.96.2.10:5000", func(t *testing.T, a string) { mustGreet(t, a, "db-0") }},
		{http1, "10.96.3.10:80", func(t *testing.T, a string) { mustGet(t, a, "web-0") }},
		{"tcp ", "10.96.3.11:5000", func(t *testing.T, a string) { mustGreet(t, a, "db-0") }},
	} {
		start := time.Now()
		c.use(t, c.address)
		first := time.Since(start)
		start = time.Now()
		c.use(t, c.address)
		t.Logf("%s: first use %v, second %v", c.address, first, time.Since(start))
		if _, ok := r.clusters()[c.form+c.address]; !ok {
			t.Errorf("%s has no cluster %q after it was used", c.address, c.form+c.address)
		}
	}
	if got := r.clusters(); len(got) != 4 {
		t.Errorf("%d clusters, want the 4 used: %v", len(got), got)
	}
	want := []netip.AddrPort{
		netip.MustParseAddrPort("10.96.1.10:80"), netip.MustParseAddrPort("10.96.2.10:5000"),
		netip.MustParseAddrPort("10.96.3.10:80"), netip.MustParseAddrPort("10.96.3.11:5000"),
	}
	if diff := cmp.Diff(want, r.server.InUse(), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("frontends in use (-want +got):\n%s", diff)
	}
}

// TestIPv6 is the same by IPv6.
func TestIPv6(t *testing.T) {
	web := webServer(t, "[fd00:244::1]:8080", "web-6")
	db := tcpServer(t, "[fd00:244::2]:5000", "db-6")
	newFixture(t, nodeOf(t,
		service{"web", "[fd00:96:1::10]:80", []string{web}},
		service{"db", "[fd00:96:2::10]:5000", []string{db}},
		service{"auto", "[fd00:96:3::10]:80", []string{web}}))
	mustGet(t, "[fd00:96:1::10]:80", "web-6")
	mustGreet(t, "[fd00:96:2::10]:5000", "db-6")
	mustGet(t, "[fd00:96:3::10]:80", "web-6")
}

// TestUnknownFrontend: a connection that is forced into Envoy and goes nowhere
// we know fails at once the first time, and within the discovery timeout later.
func TestUnknownFrontend(t *testing.T) {
	// Somebody listens there: Envoy must not be the way to it.
	webServer(t, "10.96.1.66:80", "not to be reached")
	tcpServer(t, "10.96.2.66:5000", "not to be reached")
	r := newFixture(t, nodeOf(t))
	for i := range 3 {
		limit := 100 * time.Millisecond
		if i > 0 {
			limit = r.cfg.DiscoveryTimeout + 500*time.Millisecond
		}
		start := time.Now()
		code, body, err := get("10.96.1.66:80")
		if err != nil || code != http.StatusServiceUnavailable {
			t.Errorf("HTTP try %d: %d %q, %v; want 503", i, code, body, err)
		}
		took := time.Since(start)
		if took > limit {
			t.Errorf("HTTP try %d failed after %v, want at most %v", i, took, limit)
		}
		start = time.Now()
		if got, err := greeting("10.96.2.66:5000"); got != "" {
			t.Errorf("TCP try %d: got %q, %v; want the connection closed", i, got, err)
		}
		t.Logf("try %d: HTTP %v, TCP %v", i, took, time.Since(start))
		if took := time.Since(start); took > limit {
			t.Errorf("TCP try %d failed after %v, want at most %v", i, took, limit)
		}
	}
	if got := r.clusters(); len(got) != 0 {
		t.Errorf("clusters: %v, want none", got)
	}
}

// TestServiceComesAndGoes: a name that Envoy was told is none becomes usable at
// once when its Service appears, vanishes with it, and comes back.
func TestServiceComesAndGoes(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	const address = "10.96.1.10:80"
	with, without := nodeOf(t, service{"web", address, []string{web}}), nodeOf(t)
	r := newFixture(t, without)
	if code, _, err := get(address); err != nil || code != http.StatusServiceUnavailable {
		t.Fatalf("before there is a Service: %d, %v; want 503", code, err)
	}
	for round := range 5 {
		r.server.Publish(with, nil)
		took := eventually(t, 500*time.Millisecond, func() error {
			return wants(address, "web-0")
		})
		t.Logf("round %d: usable after %v", round, took)
		r.server.Publish(without, nil)
		eventually(t, time.Second, func() error {
			if !r.server.Status().Settled || len(r.clusters()) > 0 {
				return errors.New("the cluster is still there")
			}
			return nil
		})
	}
	if st := r.server.Status(); st.NackCount > 0 {
		t.Errorf("Envoy refused: %+v", st.Nacks)
	}
}

// TestSameAddressOtherService: a ClusterIP that passes from one Service to
// another in one step leads to the other's pods.
func TestSameAddressOtherService(t *testing.T) {
	one, two := webServer(t, "10.244.0.1:8080", "one"), webServer(t, "10.244.0.2:8080", "two")
	const address = "10.96.1.10:80"
	r := newFixture(t, nodeOf(t, service{"one", address, []string{one}}))
	mustGet(t, address, "one")
	r.server.Publish(nodeOf(t, service{"two", address, []string{two}}), nil)
	took := eventually(t, time.Second, func() error { return wants(address, "two") })
	t.Logf("the other Service answers after %v", took)
}

// TestNoBackends: a Service whose pods are all gone is refused at once, and
// works again with its first pod.
func TestNoBackends(t *testing.T) {
	web := webServer(t, "10.244.0.1:8080", "web-0")
	const address = "10.96.1.10:80"
	r := newFixture(t, nodeOf(t, service{"web", address, nil}))
	for range 3 {
		start := time.Now()
		code, _, err := get(address)
		if took := time.Since(start); err != nil || code != http.StatusServiceUnavailable || took > 200*time.Millisecond {
			t.Errorf("without pods: %d, %v after %v; want 503 at once", code, err, took)
		}
	}
	r.server.Publish(nodeOf(t, service{"web", address, []string{web}}), nil)
	took := eventually(t, time.Second, func() error { return wants(address, "web-0") })
	t.Logf("usable %v after the first pod", took)
	r.server.Publish(nodeOf(t, service{"web", address, nil}), nil)
	eventually(t, time.Second, func() error {
		code, _, err := get(address)
		if code != http.StatusServiceUnavailable {
			return fmt.Errorf("after the last pod: %d, %w", code, err)
		}
		return nil
	})
}

// checkNotRedirected wants each listener at this address to answer a client that says
// nothing, and to close at once.
func checkNotRedirected(t *testing.T, from dialer, host string) {
	t.Helper()
	for _, port := range []string{"23721", "23722", "23723"} {
		if err := probePort(from, host, port); err != nil {
			t.Errorf("listener %s at %s, to a client that says nothing: %v", port, host, err)
		}
		start := time.Now()
		c, err := from.DialContext(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Errorf("listener %s at %s: %v", port, host, err)
			continue
		}
		// Closed with a request that nobody read, the answer may be lost.
		got, err := converse(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if got != "" && got != xds.NotRedirected || time.Since(start) > time.Second {
			t.Errorf("listener %s at %s: %q, %v after %v; want it closed at once", port, host, got, err, time.Since(start))
		}
	}
}

// TestNotRedirected: a connection to the listeners' own addresses is answered by
// the listener, reaches nothing, and no lookup is made for it.
func TestNotRedirected(t *testing.T) {
	r := newFixture(t, nodeOf(t))
	for _, host := range []string{listen4, listen6} {
		checkNotRedirected(t, &net.Dialer{}, host)
	}
	if names := r.server.Status().Kinds[0]; names.Responses != 0 {
		t.Errorf("Envoy asked for clusters: %+v", names)
	}
	text, err := os.ReadFile(r.path("access.log"))
	if err != nil || len(text) > 0 {
		t.Errorf("access log: %q, %v; want nothing in it", text, err)
	}
}
