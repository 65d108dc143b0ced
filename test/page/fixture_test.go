// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"

	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/debug/page"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/flow"
)

// node is an agent's debug endpoint, with a state that tests choose.
type node struct {
	// url is where the page is, on loopback as a person opens it.
	url   string
	flows *flow.Log
	// change is applied to the summary.
	change atomic.Pointer[func(*view.Summary)]
	pods   []view.Pod
	// name is what users have called all that they could, if it is set.
	name string
	// asked are the questions to why, and answers the JSON for each, by the name of a file
	// in testdata.
	asked  chan url.Values
	answer atomic.Pointer[string]
	// served is how many requests have been counted, and stop ends the endpoint.
	served atomic.Int64
	stop   context.CancelFunc
}

// start serves the real debug endpoint and the real page.
func start(t *testing.T) *node {
	t.Helper()
	n := &node{flows: flow.NewLog(3000), asked: make(chan url.Values, 100), pods: somePods()}
	through := "through-envoy"
	n.answer.Store(&through)
	n.serve(t, "127.0.0.1:0")
	return n
}

// serve begins to serve, until stop is called or the test ends.
func (n *node) serve(t *testing.T, address string) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	must(t, err)
	n.url = "http://" + ln.Addr().String()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	srv := debug.NewServer(n.source(), false, time.Now, zaptest.NewLogger(t))
	go func() {
		defer close(ended)
		if err := srv.RunLoopback(ctx, ln); err != nil {
			t.Error(err)
		}
	}()
	n.stop = func() {
		stop()
		<-ended
	}
	t.Cleanup(n.stop)
}

func (n *node) source() debug.Source {
	return debug.Source{
		Summary: n.summary,
		Pods:    func(view.Query) view.List[view.Pod] { return view.List[view.Pod]{Items: n.pods} },
		Services: func(view.Query) view.List[view.Service] {
			services := someServices()
			if n.name != "" {
				services[0].Name, services[0].Ports[0].Name, services[0].Ports[0].Why = n.name, n.name, n.name
			}
			return view.List[view.Service]{Items: services}
		},
		Redirect: func() view.RedirectPlan {
			return view.RedirectPlan{Mended: true, Drift: []view.Drift{{Pod: "shop/web-1", Kind: "foreign rule", Name: "OUTPUT", Detail: "-A OUTPUT -j OTHER comes first"}}}
		},
		Config: func() view.Config {
			return view.Config{
				Mode: "pod", Flags: []view.Flag{{Name: "debug-address", Value: "127.0.0.1:23719", Given: true}, {Name: "metrics-address", Value: "127.0.0.1:23720"}},
				Listeners: []view.Listener{{Class: "http", Address: "127.0.0.1:23722"}, {Class: "tcp", Address: "127.0.0.1:23721"}},
			}
		},
		Flows:   n.flows,
		Why:     n.why,
		Metrics: http.HandlerFunc(n.metrics),
		Health:  debug.Health{Live: func() string { return "" }, Ready: func() string { return "" }},
		Page:    page.Files(),
	}
}

func (n *node) summary() view.Summary {
	now := time.Now()
	before := now.Add(-754 * time.Second)
	s := view.Summary{
		Node: "node-a", At: now, Phase: "redirecting", RedirectingSince: &before,
		Envoy: view.Envoy{Version: "1.40.0", Connected: true, Since: &before, ListenersAcked: true},
		Redirect: view.Redirect{
			Mode: "pod", Backend: "nft", Rules: 52, Applied: &now, DriftRepaired: 1,
			Why: []string{
				"there are no eBPF programs on pods' interfaces", "there is no load balancing at the socket: no eBPF program acts on connect",
				"this process may enter network namespaces (capability SYS_ADMIN), and the kernel takes the rules there, by iptables-nft",
			},
		},
		PodCount: view.PodCount{All: 4, Enrolled: 3, Redirected: 2}, FrontendCount: map[string]int{"http": 12, "tcp": 30, "bypass": 3},
		Memory:  view.Memory{Used: 3 << 20, Limit: 256 << 20},
		Watches: []view.Watch{{Kind: "pods", Synced: true}, {Kind: "services", Synced: true}}, Problems: []string{},
	}
	if change := n.change.Load(); change != nil {
		(*change)(&s)
	}
	return s
}

// why answers with what the agent's package why wrote for a situation of its own tests.
func (n *node) why(_ context.Context, q url.Values) (any, error) {
	n.asked <- q
	if q.Get("from") == "shop/nobody" {
		return nil, fmt.Errorf("%w: there is no pod shop/nobody on this node", debug.ErrInvalid)
	}
	text, err := os.ReadFile("testdata/" + *n.answer.Load() + ".json")
	if n.name != "" {
		text = bytes.ReplaceAll(text, []byte("client"), []byte(strings.Trim(quote(n.name), `"`)))
		text = bytes.ReplaceAll(text, []byte("api-1"), []byte(strings.Trim(quote(n.name), `"`)))
	}
	return json.RawMessage(text), err
}

// metrics are those of a Service with one error among ten requests, by the time of each
// call.
func (n *node) metrics(w http.ResponseWriter, _ *http.Request) {
	i := n.served.Add(1)
	ok := 90 * i * (3 + i%5)
	var b strings.Builder
	fmt.Fprintf(&b, "# TYPE nodevoy_requests_total counter\n")
	for _, port := range []string{"cart", "api"} {
		labels := fmt.Sprintf(`namespace="shop",service=%q,port="http"`, port)
		fmt.Fprintf(&b, "nodevoy_requests_total{%s,code=\"200\"} %d\n", labels, ok)
		if port == "cart" {
			fmt.Fprintf(&b, "nodevoy_requests_total{%s,code=\"503\"} %d\n", labels, ok/9)
		}
		for le, part := range map[string]int64{"0.005": 2, "0.05": 1, "+Inf": 1} {
			fmt.Fprintf(&b, "nodevoy_request_duration_seconds_bucket{%s,le=%q} %d\n", labels, le, ok/part)
		}
		fmt.Fprintf(&b, "nodevoy_connections_total{%s} %d\n", labels, i*4)
	}
	_, _ = w.Write([]byte(b.String())) // Fails when the browser has gone.
}

func somePods() []view.Pod {
	return []view.Pod{
		{Namespace: "shop", Name: "web-7f9c5-x2x1p", IPs: []string{"10.244.1.5"}, Enrolled: true, Redirected: true, Reason: "namespace label nodevoy.io/redirect=enabled", Netns: "/run/netns/cni-5b0f6e0a"},
		{Namespace: "shop", Name: "batch-1", IPs: []string{"10.244.1.6", "fd00::6"}, Enrolled: true, Redirected: true, Reason: "namespace label nodevoy.io/redirect=enabled"},
		{Namespace: "shop", Name: "legacy-0", IPs: []string{"10.244.1.7"}, Enrolled: true, Reason: "namespace label nodevoy.io/redirect=enabled", NotRedirected: "the pod has nat rules of its own"},
		{Namespace: "kube-system", Name: "coredns-abc", IPs: []string{"10.244.1.2"}, Reason: "namespace kube-system is left alone"},
	}
}

func someServices() []view.Service {
	of := func(namespace, name string, backends int) view.Service {
		return view.Service{Namespace: namespace, Name: name, InUse: true, Ports: []view.ServicePort{{
			Name: "http", Port: 80, Class: "http", Why: "port name http", Addresses: []string{"10.96.0.10:80"}, InUse: true, Backends: backends,
		}}}
	}
	return []view.Service{of("shop", "api", 3), of("shop", "cart", 0), of("shop", "quiet", 2)}
}

// call is a request of shop/web to a Service of shop, answered by one of its pods.
func call(service string, pod int, change ...func(*flow.Flow)) flow.Flow {
	f := flow.Flow{
		Time: time.Now(), Origin: flow.OriginEnvoy,
		Source:   flow.Peer{Address: netip.MustParseAddrPort("10.244.1.5:41522"), Namespace: "shop", Pod: "web-7f9c5-x2x1p", Workload: "web", Node: "node-a", Zone: "zone-a"},
		Frontend: netip.MustParseAddrPort("10.96.0.10:80"), Service: flow.Service{Namespace: "shop", Name: service, Port: "http"},
		Class: "http", ClassReason: "port name http",
		Backend: flow.Peer{
			Address: netip.MustParseAddrPort("10.244.2.7:8080"), Namespace: "shop", Pod: fmt.Sprintf("%s-%d", service, pod), Workload: service, Node: "node-b", Zone: "zone-b",
		},
		Protocol: "HTTP/1.1", Method: "GET", Path: "/" + service + "/items", Host: service, Status: 200, GRPCStatus: -1,
		BytesSent: 120, BytesReceived: 5120, Duration: flow.Millis(3210 * time.Microsecond), FirstByte: flow.Millis(2 * time.Millisecond), Attempts: 1,
		RequestID: "0b0c9a3e-1f",
	}
	for _, c := range change {
		c(&f)
	}
	return f
}

// broken makes a flow one that failed.
func broken(f *flow.Flow) {
	f.Status, f.Flags, f.Detail = 503, []flow.Flag{"UF", "URX"}, "delayed connect error: 111"
	f.Attempts = 2
}

// kernel makes a flow one that was not redirected.
func kernel(f *flow.Flow) {
	f.Origin, f.Protocol, f.Method, f.Path, f.Status, f.Host, f.RequestID = flow.OriginKernel, "TCP", "", "", 0, "", ""
	f.Source.Pod, f.Source.Workload = "batch-1", "batch"
}
