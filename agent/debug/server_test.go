// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/why"
)

// fakeLevels keep what they are told.
type fakeLevels struct{ set view.SetLogLevel }

func (l *fakeLevels) Get(context.Context) view.LogLevel {
	until := time.Unix(1_000_600, 0).UTC()
	return view.LogLevel{Agent: l.set.Agent, Envoy: l.set.Envoy, Until: &until}
}

func (l *fakeLevels) Set(_ context.Context, to view.SetLogLevel) error {
	if to.Agent == "loud" {
		return fmt.Errorf("%w: loud", ErrInvalid)
	}
	l.set = to
	return nil
}

func (l *fakeLevels) Reset(context.Context) error {
	l.set = view.SetLogLevel{Agent: "info", Envoy: "info"}
	return nil
}

// sampleFlow is one with every field that a flow can have.
func sampleFlow() flow.Flow {
	return flow.Flow{
		Time: time.Unix(1_000_000, 0).UTC(), Origin: flow.OriginEnvoy, Open: true,
		Source:   flow.Peer{Address: netip.MustParseAddrPort("10.244.1.5:41522"), Namespace: "shop", Pod: "web-2c", Workload: "deployment/web", Node: "node-a", Zone: "z1"},
		Frontend: netip.MustParseAddrPort("10.96.0.10:80"), Service: flow.Service{Namespace: "shop", Name: "cart", Port: "http"},
		Class: "http", ClassReason: "port name http",
		Backend:  flow.Peer{Address: netip.MustParseAddrPort("10.244.2.7:8080"), Namespace: "shop", Pod: "cart-1"},
		Protocol: "HTTP/1.1", Method: "GET", Path: "/cart", Query: "a=b", Host: "cart", Status: 503, GRPCStatus: -1,
		Flags: []flow.Flag{"UF", "XX"}, Detail: "connection refused\n\"<script>\"", BytesSent: 10, BytesReceived: 20,
		Duration: flow.Millis(3 * time.Millisecond), Connect: flow.Millis(time.Millisecond), FirstByte: flow.Millis(2 * time.Millisecond),
		Attempts: 2, RequestID: "r", TraceID: "t",
	}
}

// sampleSource is one in which every field of every answer is set.
func sampleSource() Source {
	at, yes, no := time.Unix(1_000_000, 0).UTC(), true, false
	envoy := view.Envoy{
		Version: "1.40.0", Connected: true, Since: &at, ListenersAcked: true, Unanswered: 1, ProbeError: "p", Nacks: 1,
		LastNacks: []view.Nack{{At: at, Type: "cluster", Detail: "d"}},
	}
	redirect := view.Redirect{Mode: "pod", Mechanism: "dnat", Backend: "nft", Why: []string{"w"}, Rules: 3, Applied: &at, Error: "e", CheckError: "c", DriftRepaired: 2, Leftover: "l"}
	frontend := view.Frontend{
		Address: "10.96.0.10:80", Service: "shop/cart/http", Class: "http", Why: "w", Bypass: "b", InUse: true,
		Backends: []view.Backend{{Address: "10.244.2.7:8080", Pod: "shop/cart-1", Node: "node-b", Zone: "z", Terminating: true}},
	}
	service := view.Service{Namespace: "shop", Name: "cart", InUse: true, Ports: []view.ServicePort{{
		Name: "http", Port: 80, Class: "http", Why: "w", Addresses: []string{"10.96.0.10:80"}, Bypassed: 1, InUse: true, Backends: 1,
	}}}
	limits := []view.Limit{{What: "w", Most: "m", Above: "a"}}
	flows := flow.NewLog(100)
	flows.Add(sampleFlow(), flow.Flow{Time: at, Origin: flow.OriginKernel, Protocol: "TCP"})
	flows.Lose(flow.LossSampled, 3)
	return Source{
		Summary: func() view.Summary {
			return view.Summary{
				Node: "node-a", At: at, Phase: "redirecting", Reason: "r", NotReady: "n", Stuck: "s", PendingSince: &at, ObjectsRead: &at, RedirectingSince: &at,
				Envoy: envoy, Redirect: redirect, PodCount: view.PodCount{All: 3, Enrolled: 2, Redirected: 1}, FrontendCount: map[string]int{"http": 1, "bypass": 2},
				Memory: view.Memory{Used: 1, Limit: 2, Left: map[string]int{"shop/cart": 1}, LeftCount: 1, LeftServices: 1}, Limits: limits,
				Watches: []view.Watch{{Kind: "Pod", Synced: true, Absent: true, Error: "e", Since: &at}}, Problems: []string{"p"}, ProblemCount: 1,
			}
		},
		Pods: func(q view.Query) view.List[view.Pod] {
			return view.List[view.Pod]{Continue: q.Namespace + "\x00" + q.After, Items: []view.Pod{{
				Namespace: "shop", Name: "web-2c", IPs: []string{"10.244.1.5"}, Enrolled: true, Reason: "r", Redirected: true, NotRedirected: "n", Netns: "/run/netns/x",
			}}}
		},
		Services: func(view.Query) view.List[view.Service] {
			return view.List[view.Service]{Items: []view.Service{service}}
		},
		Service: func(_, name string) (view.ServiceDetail, bool) {
			return view.ServiceDetail{Service: service, Frontends: []view.Frontend{frontend}, Continue: "10.96.0.10:80"}, name == "cart"
		},
		Frontends: func(q view.Query) (view.List[view.Frontend], error) {
			if q.After == "bad" {
				return view.List[view.Frontend]{}, ErrInvalid
			}
			return view.List[view.Frontend]{Items: []view.Frontend{frontend}}, nil
		},
		Redirect: func() view.RedirectPlan {
			rule := view.Rule{Spec: "-j RETURN", Reason: "r"}
			return view.RedirectPlan{
				At: at, Phase: "redirecting", Reason: "r", Redirect: redirect, Checked: &at, Mended: true,
				Drift: []view.Drift{{Pod: "shop/web-2c", Kind: "jump", Name: "ipv4 nat OUTPUT", Detail: "missing"}},
				Families: []view.Family{{
					Family: "ipv4", Address: "127.0.0.1",
					Sets:   []view.Set{{Name: "s", Type: "hash:ip", Reason: "r", Members: 1, TimeoutSeconds: 30, Found: view.Found{InPlace: &yes}}},
					Jumps:  []view.Jump{{Table: "nat", Parent: "OUTPUT", Rule: rule, Found: view.Found{InPlace: &no, Found: []string{"missing"}}}},
					Chains: []view.Chain{{Table: "nat", Name: "NODEVOY-OUTPUT", Rules: []view.Rule{rule}}},
				}},
				Pods: []view.PodRules{{Namespace: "shop", Name: "web-2c", UID: "u", IPs: []string{"10.244.1.5"}, Netns: "/run/netns/x", Redirected: true, Reason: "r", Terminating: true}},
			}
		},
		XDS: func(view.Query) view.XDS {
			return view.XDS{
				Envoy: envoy, Streams: []view.Stream{{Since: at, Version: "1.40.0", Unanswered: 1, Kinds: map[string]view.ResourceCount{"cluster": {Subscribed: 2, Accepted: 1, Refused: 1}}}},
				List: view.List[view.Resource]{Continue: "k", Items: []view.Resource{{Stream: 0, Kind: "cluster", Name: "n", State: "refused", Version: "v", Accepted: "u", Why: "w", RefusedAt: &at}}},
			}
		},
		Config: func() view.Config {
			return view.Config{
				Version: "dev", Node: "node-a", Flags: []view.Flag{{Name: "node-name", Value: "node-a", Given: true}},
				Mode: "host", Mechanism: "dnat", Backend: "nft", Listeners: []view.Listener{{Class: "http", Address: "127.0.0.1:23722"}}, Limits: limits,
			}
		},
		Flows:  flows,
		Levels: &fakeLevels{set: view.SetLogLevel{Agent: "info", Envoy: "info"}},
		Envoy: func(_ context.Context, _ string, q url.Values) (EnvoyPage, error) {
			if q.Get("filter") == "down" {
				return EnvoyPage{}, fmt.Errorf("%w: no Envoy", ErrUnavailable)
			}
			var text io.Reader = strings.NewReader(`{"configs":[]}`)
			if q.Get("filter") == "broken" {
				text = io.MultiReader(text, errorReader{})
			}
			return EnvoyPage{"application/json", io.NopCloser(text)}, nil
		},
		Why: func(_ context.Context, q url.Values) (any, error) {
			return why.Answer{
				Verdict: why.Envoy, Sentence: q.Get("from"), At: at, From: why.Party{Asked: "a", Namespace: "shop", Name: "web", Address: "10.244.1.2"},
				Chain: []why.Link{{
					Name: "rule", State: why.OK, Evidence: []string{"e"}, Rule: &why.Rule{Packets: new(uint64)}, Sets: []why.Entry{{Missing: true, Left: 1}},
					Backends: []why.Backend{{Pod: "p", Node: "n", Zone: "z", Seen: &why.Host{Ejected: true, Flags: []string{"f"}}}},
				}},
			}, nil
		},
		Advise: func(context.Context, url.Values) (any, error) {
			return nil, fmt.Errorf("no conntrack: %w", ErrUnavailable)
		},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4")
			_, _ = io.WriteString(w, "nodevoy_redirecting 1\n")
		}),
		Health: Health{Live: func() string { return "" }, Ready: func() string { return "waiting for Envoy" }},
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errors.New("cut off") }

// newFront is the endpoint on the unix socket, or on loopback.
func newFront(t *testing.T, source Source, private bool) *front {
	t.Helper()
	return NewServer(source, true, time.Now, zaptest.NewLogger(t)).front(private)
}

// ask sends a request as the client does.
func ask(h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://localhost"+target, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestErrorsAreJSON(t *testing.T) {
	unix, loopback := newFront(t, sampleSource(), true).handler(), newFront(t, sampleSource(), false).handler()
	for _, tt := range []struct {
		h              http.Handler
		method, target string
		status         int
		says           string
	}{
		{unix, "GET", "/v1/nothing", 404, "/v1/openapi.yaml has all paths"},
		{unix, "GET", "/nothing", 404, "/v1/openapi.yaml has all paths"},
		{unix, "GET", "/status", 404, "/status"},
		{unix, "POST", "/v1/summary", 405, "GET"},
		{unix, "DELETE", "/v1/flows", 405, "GET"},
		{unix, "POST", "/", 405, "GET"},
		{unix, "GET", "/v1/summary?all", 400, "all"},
		{unix, "GET", "/v1/pods?limit=0", 400, "limit"},
		{unix, "GET", "/v1/pods?limit=1001", 400, "limit"},
		{unix, "GET", "/v1/pods?limit=x", 400, "limit"},
		{unix, "GET", "/v1/pods?continue=%21", 400, "continue"},
		{unix, "GET", "/v1/pods?nmespace=shop", 400, "nmespace"},
		{unix, "GET", "/v1/pods?a=%zz", 400, "%zz"},
		{unix, "GET", "/v1/frontends?continue=YmFk", 400, "invalid"},
		{unix, "GET", "/v1/services?inUse=maybe", 400, "maybe"},
		{unix, "GET", "/v1/services/shop/nothing", 404, "shop/nothing"},
		{unix, "GET", "/v1/flows?last=-1", 400, "last"},
		{unix, "GET", "/v1/flows?last=1001", 400, "last"},
		{unix, "GET", "/v1/flows?status=6xxx", 400, "6xxx"},
		{unix, "GET", "/v1/flows?id=x", 400, "id"},
		{unix, "GET", "/v1/flows?id=99", 404, "99"},
		{unix, "GET", "/v1/flows?form=shop/web", 400, "form"},
		{unix, "GET", "/v1/advise", 503, "no conntrack"},
		{unix, "GET", "/v1/envoy/clusters?filter=down", 503, "no Envoy"},
		{unix, "GET", "/v1/envoy/quitquitquit", 404, "quitquitquit"},
		{unix, "POST", "/v1/envoy/stats", 405, "GET"},
		{unix, "GET", "/v1/envoy/stats?post=x", 400, "post"},
		{unix, "PUT", "/v1/log-level", 400, "EOF"},
		{loopback, "PUT", "/v1/log-level", 403, "unix socket"},
		{loopback, "DELETE", "/v1/log-level", 403, "unix socket"},
		{loopback, "GET", "/v1/envoy/config_dump", 403, "unix socket"},
		{loopback, "GET", "/debug/pprof/", 403, "unix socket"},
		{loopback, "GET", "/debug/pprof/heap", 403, "unix socket"},
		{loopback, "GET", "/debug/pprof/profile", 403, "unix socket"},
		{loopback, "GET", "/v1/why?live", 400, "unix socket"},
	} {
		w := ask(tt.h, tt.method, tt.target, "")
		var e view.Error
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || w.Code != tt.status || !strings.Contains(e.Error, tt.says) {
			t.Errorf("%s %s: %d %s, want %d with %q (%v)", tt.method, tt.target, w.Code, w.Body, tt.status, tt.says, err)
		}
	}
}

// TestOtherWebsitesAreKeptOut: under whatever name they lead a browser here, and from
// whatever origin.
func TestOtherWebsitesAreKeptOut(t *testing.T) {
	h := newFront(t, sampleSource(), true).handler()
	for _, tt := range []struct {
		headers []string
		status  int
	}{
		{nil, 200},
		{[]string{"Host", "localhost:8080"}, 200},
		{[]string{"Host", "127.0.0.1"}, 200},
		{[]string{"Host", "127.0.0.1:23719"}, 200},
		{[]string{"Host", "[::1]"}, 200},
		{[]string{"Host", "[::1]:23719"}, 200},
		{[]string{"Host", "evil.example"}, 403},
		{[]string{"Host", "evil.example:23719"}, 403},
		{[]string{"Host", "localhost.evil.example"}, 403},
		{[]string{"Host", "127.0.0.1.evil.example"}, 403},
		{[]string{"Host", "0.0.0.0:23719"}, 403},
		{[]string{"Host", "10.0.0.1"}, 403},
		{[]string{"Host", ""}, 403},
		{[]string{"Origin", "http://localhost"}, 200},
		{[]string{"Host", "localhost:8080", "Origin", "http://localhost:8080"}, 200},
		{[]string{"Host", "localhost:8080", "Origin", "http://localhost:9090"}, 403},
		{[]string{"Origin", "http://evil.example"}, 403},
		{[]string{"Origin", "null"}, 403},
		{[]string{"Sec-Fetch-Site", "same-origin"}, 200},
		{[]string{"Sec-Fetch-Site", "none"}, 200},
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Sec-Fetch-Site", "same-site"}, 403},
		{[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, 403},
		{[]string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 200},
	} {
		w := ask(h, "GET", "/v1/summary", "", tt.headers...)
		if w.Code != tt.status {
			t.Errorf("%q: %d, want %d: %s", tt.headers, w.Code, tt.status, w.Body)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%q: headers %v", tt.headers, w.Header())
		}
	}
	if w := ask(h, "PUT", "/v1/log-level", `{"agent":"debug"}`, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"); w.Code != 403 {
		t.Errorf("a form of another site: %d", w.Code)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if w := ask(h, "GET", path, "", "Host", "10.0.0.1:23720"); w.Code == 403 {
			t.Errorf("%s: a probe is kept out", path)
		}
	}
}

func TestLogLevel(t *testing.T) {
	source := sampleSource()
	h := newFront(t, source, true).handler()
	w := ask(h, "PUT", "/v1/log-level", `{"agent":"debug","envoy":"trace","for":"10m"}`)
	want := view.SetLogLevel{Agent: "debug", Envoy: "trace", For: view.Duration(10 * time.Minute)}
	if got := source.Levels.(*fakeLevels).set; got != want || w.Code != 200 {
		t.Errorf("set %+v, want %+v; %d %s", got, want, w.Code, w.Body)
	}
	if text := w.Body.String(); text != `{"agent":"debug","envoy":"trace","until":"1970-01-12T13:56:40Z"}`+"\n" {
		t.Errorf("answer %s", text)
	}
	for body, says := range map[string]string{
		`{"agent":"loud"}`: "loud", `{"agnet":"debug"}`: "agnet", `{"for":5}`: "10m", `{"for":"x"}`: "x", `[]`: "cannot", strings.Repeat(" ", maxBody+1): "too large",
	} {
		if w := ask(h, "PUT", "/v1/log-level", body); w.Code != 400 || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%.40s: %d %s, want 400 with %q", body, w.Code, w.Body, says)
		}
	}
	if w := ask(h, "DELETE", "/v1/log-level", ""); w.Code != 200 || source.Levels.(*fakeLevels).set.Agent != "info" {
		t.Errorf("reset: %d %s", w.Code, w.Body)
	}
}

// TestPage serves files of the page, and nothing else beside the API.
func TestPage(t *testing.T) {
	source := sampleSource()
	if w := ask(newFront(t, source, true).handler(), "GET", "/", ""); w.Code != 200 || !strings.Contains(w.Body.String(), `href="/v1/envoy/stats"`) {
		t.Errorf("without a page: %d %s", w.Code, w.Body)
	}
	if w := ask(newFront(t, source, false).handler(), "GET", "/", ""); strings.Contains(w.Body.String(), "/v1/envoy") {
		t.Errorf("loopback links to what is not there: %s", w.Body)
	}
	source.Page = fstest.MapFS{"index.html": {Data: []byte("<h1>page")}, "app/app.js": {Data: []byte("1")}}
	h := newFront(t, source, false).handler()
	for path, want := range map[string]int{"/": 200, "/app/app.js": 200, "/app": 404, "/app/": 404, "/other.js": 404, "/v1/": 404, "/../index.html": 307} {
		if w := ask(h, "GET", path, ""); w.Code != want {
			t.Errorf("%s: %d, want %d: %s", path, w.Code, want, w.Body)
		}
	}
	if w := ask(h, "GET", "/", ""); !strings.Contains(w.Header().Get("Content-Security-Policy"), "frame-ancestors 'none'") || w.Body.String() != "<h1>page" {
		t.Errorf("page: %v %s", w.Header(), w.Body)
	}
}

// TestBrokenPageOfEnvoy: what breaks off doesn't look whole.
func TestBrokenPageOfEnvoy(t *testing.T) {
	srv := httptest.NewServer(newFront(t, sampleSource(), true).handler())
	t.Cleanup(srv.Close)
	resp, err := http.Get(srv.URL + "/v1/envoy/stats?filter=broken")
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	if err == nil {
		t.Error("an answer that breaks off looks whole")
	}
}
