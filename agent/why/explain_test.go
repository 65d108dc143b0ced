// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/why"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/test/openapitest"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// situations are those that the answers are written for: each is the calm one with one
// thing changed.
func situations() map[string]func(*situation) {
	all := map[string]func(*situation){
		"through-envoy": func(*situation) {},
		"not-live":      func(s *situation) { s.input = func(in *why.Input) { in.Live = nil } },
	}
	for _, more := range []map[string]func(*situation){ofPods(), ofServices(), ofTheNode(), ofEnvoy()} {
		for name, change := range more {
			all[name] = change
		}
	}
	return all
}

func ofPods() map[string]func(*situation) {
	from := func(name string, more ...func(*situation)) func(*situation) {
		return func(s *situation) {
			s.question.From = name
			for _, m := range more {
				m(s)
			}
		}
	}
	return map[string]func(*situation){
		"not-labelled": from("other/outsider", func(s *situation) { s.question.To = "shop/api:80" }),
		"kernel-flows": from("other/outsider", func(s *situation) {
			s.question.To = "shop/api:80"
			s.input = func(in *why.Input) {
				in.Flows = []flow.Flow{{
					ID: 3, Time: now().Add(-time.Minute), Origin: flow.OriginKernel, Protocol: "TCP", GRPCStatus: -1, Duration: flow.Millis(time.Second),
					Backend: flow.Peer{Address: netip.MustParseAddrPort("10.244.2.5:8080"), Namespace: "shop", Pod: "api-2"},
				}}
			}
		}),
		"opted-out": from("shop/old", func(s *situation) {
			s.objects.Pods[2].Labels = map[string]string{model.RedirectLabel: model.RedirectDisabled}
		}),
		"host-network": from("shop/agent", func(s *situation) {
			s.objects.Pods = append(s.objects.Pods, pod("shop", "agent", "172.30.0.1"))
			s.objects.Pods[3].Spec.HostNetwork = true
		}),
		"pod-too-young": from("shop/young", func(s *situation) { s.objects.Pods = append(s.objects.Pods, pod("shop", "young")) }),
		"no-ipv6": from("shop/old", func(s *situation) {
			s.addService("shop", "six", "fd96::1", port("http", 80, "http"))
			s.addEndpoints("shop", "six", ready("fd00::1", "x", "node-a"))
			s.question.To = "six:80"
		}),
		"workload": from("shop/web", func(s *situation) {
			s.objects.Pods = append(s.objects.Pods, pod("shop", "web-6d4b8c7f9d-x2x4z", "10.244.1.9"))
		}),
		"elsewhere": from("shop/api-2"),
		"nobody":    from("shop/nobody"),
		"the-node":  from("172.30.0.1", func(s *situation) { s.question.To = "10.96.0.10:80" }),
		"own-rules": func(s *situation) {
			s.input = func(in *why.Input) {
				in.Pods["uid-client"] = why.PodState{Netns: "/run/netns/cni-client", Reason: "the pod has nat rules of its own"}
			}
		},
	}
}

func ofServices() map[string]func(*situation) {
	to := func(name string, more ...func(*situation)) func(*situation) {
		return func(s *situation) {
			s.question.To = name
			for _, m := range more {
				m(s)
			}
		}
	}
	return map[string]func(*situation){
		"headless": to("db:5432", func(s *situation) { s.addService("shop", "db", corev1.ClusterIPNone, port("pg", 5432, "")) }),
		"external-name": to("far:80", func(s *situation) {
			s.addService("shop", "far", "", port("http", 80, "")).Spec.Type = corev1.ServiceTypeExternalName
		}),
		"no-endpoints": to("empty:80", func(s *situation) { s.addService("shop", "empty", "10.96.0.11", port("http", 80, "")) }),
		"none-ready": func(s *situation) {
			for i := range s.objects.EndpointSlices[0].Endpoints {
				s.objects.EndpointSlices[0].Endpoints[i].Conditions.Ready = new(false)
			}
		},
		"local-policy": func(s *situation) {
			s.service("api").Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
			s.objects.EndpointSlices[0].Endpoints = s.objects.EndpointSlices[0].Endpoints[1:]
		},
		"wrong-port":   to("api:81"),
		"wrong-name":   to("apii.shop.svc.cluster.local:80"),
		"no-namespace": to("shops/api:80"),
		"no-host":      to("example.com:443"),
		"undeclared": to("blob:7777", func(s *situation) {
			s.addService("shop", "blob", "10.96.0.12", port("", 7777, ""))
			s.addEndpoints("shop", "blob", ready("10.244.2.7", "blob-1", "node-b"))
		}),
		"affinity": func(s *situation) { s.service("api").Spec.SessionAffinity = corev1.ServiceAffinityClientIP },
		"excluded": to("kube-system/dns:53", func(s *situation) { s.addService("kube-system", "dns", "10.96.0.53", port("dns-tcp", 53, "")) }),
		"udp": to("dns:53", func(s *situation) {
			s.addService("shop", "dns", "10.96.0.53", corev1.ServicePort{Port: 53, Protocol: corev1.ProtocolUDP})
		}),
		"pod-address":   to("10.244.2.5:8080"),
		"node-address":  to("172.30.0.1:30080"),
		"other-address": to("192.0.2.1:443"),
		"ipv6": to("[fd96::10]:80", func(s *situation) {
			s.addService("shop", "six", "fd96::10", port("http", 80, "http"))
			s.addEndpoints("shop", "six", ready("fd00:10:244:2::5", "api-2", "node-b"))
		}),
		"tls-behind-http": func(s *situation) {
			s.service("api").Spec.Ports[0].AppProtocol = nil
			s.seen = map[netip.AddrPort]model.Seen{netip.MustParseAddrPort("10.96.0.10:80"): {TLS: true}}
		},
	}
}

func ofTheNode() map[string]func(*situation) {
	seen := func(change func(*why.Input)) func(*situation) { return func(s *situation) { s.input = change } }
	return map[string]func(*situation){
		"rule-missing":  seen(func(in *why.Input) { in.Live.Kernel.Chains[1].Rules = nil }),
		"chain-missing": seen(func(in *why.Input) { in.Live.Kernel.Chains[1].Missing = true }),
		"jump-not-first": seen(func(in *why.Input) {
			c := &in.Live.Kernel.Chains[0]
			c.Rules = append([]why.CountedRule{{Line: "-A OUTPUT -j OTHERS"}}, c.Rules...)
		}),
		"set-entry-missing": seen(func(in *why.Input) { in.Live.Kernel.Frontend[0].There = false }),
		"switch-expired":    seen(func(in *why.Input) { in.Live.Kernel.Source.There = false }),
		"over-the-limit":    seen(func(in *why.Input) { in.Live.Kernel.Full.There = true }),
		"unreadable":        seen(func(in *why.Input) { in.Live.Kernel, in.Live.KernelErr = nil, "iptables is busy" }),
		"out-of-memory": seen(func(in *why.Input) {
			in.Short = func(*model.Frontend) string {
				return "Envoy's memory for Services in use is limited: Service shop/api takes much of it already"
			}
		}),
		"agent-stuck": seen(func(in *why.Input) {
			in.Agent.Stuck, in.Agent.At = "the loop has not moved for 1m10s", now().Add(-70*time.Second)
		}),
		"superseded":   seen(func(in *why.Input) { in.Agent.Superseded, in.Agent.Redirecting = true, false }),
		"not-followed": seen(func(in *why.Input) { in.Agent.Errors = []string{"Services are not followed for 2m0s: forbidden"} }),
	}
}

func ofEnvoy() map[string]func(*situation) {
	seen := func(change func(*why.Input)) func(*situation) { return func(s *situation) { s.input = change } }
	return map[string]func(*situation){
		"envoy-down": seen(func(in *why.Input) {
			in.Agent.Redirecting, in.Agent.Reason = false, "no Envoy is connected"
			in.XDS = why.XDS{}
			in.Live.Proxy, in.Live.ProxyErr = nil, "nothing listens on /run/nodevoy/envoy-admin.sock"
			in.Live.Kernel.Source.There = false
		}),
		"refused": seen(func(in *why.Input) {
			in.Refused = func(*model.Frontend) string {
				return "listener http-v4: cannot bind '169.254.64.15:23722': Address already in use"
			}
			in.Nacks = []why.Nack{{At: now().Add(-3 * time.Second), Type: "listener", Detail: "Error adding/updating listener(s)\n http-v4: cannot bind", Names: []string{in.XDS.Listener.Name}}}
		}),
		"all-ejected": seen(func(in *why.Input) {
			for at, hosts := range in.Live.Proxy.Hosts {
				hosts[0].Healthy, hosts[0].Ejected, hosts[0].Flags, hosts[0].Failed = false, true, []string{"failed_outlier_check"}, 5
				in.Live.Proxy.Hosts[at] = hosts
			}
		}),
		"not-used-yet": seen(func(in *why.Input) {
			in.XDS.Clusters, in.XDS.Endpoints, in.Live.Proxy.Clusters, in.Live.Proxy.Hosts = nil, nil, nil, nil
		}),
		"port-conflict": seen(func(in *why.Input) {
			in.Pods["uid-client"] = why.PodState{Netns: "/run/netns/cni-client", Reason: "the pod itself listens on a port of Envoy's: 127.0.0.1:23722"}
		}),
		"flows": seen(func(in *why.Input) {
			in.Flows = []flow.Flow{
				{
					ID: 12, Time: now().Add(-time.Second), Protocol: "HTTP/1.1", Method: "GET", Path: "/", Status: 503, GRPCStatus: -1, Flags: []flow.Flag{"UF"}, Duration: flow.Millis(3 * time.Millisecond),
					Backend: flow.Peer{Address: netip.MustParseAddrPort("10.244.2.5:8080"), Namespace: "shop", Pod: "api-2"},
				},
				{ID: 11, Time: now().Add(-2 * time.Second), Protocol: "TCP", GRPCStatus: -1, Duration: flow.Millis(2 * time.Millisecond)},
			}
		}),
	}
}

// TestSituations wants of each situation the answer that is in testdata.
func TestSituations(t *testing.T) {
	spec, err := os.ReadFile("../debug/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	described := openapitest.New(t, spec)
	names := map[string]bool{}
	for name, change := range situations() {
		file := filepath.Join("testdata", name+".txt")
		names[file] = true
		s := calm()
		change(s)
		in := s.in()
		answer := why.Explain(in, s.pair)
		body, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		if err := described.Check(http.MethodGet, "/v1/why", http.StatusOK, "application/json", string(body)); err != nil {
			t.Errorf("%s is not as the endpoint describes it: %v", name, err)
		}
		var text bytes.Buffer
		text.WriteString(string(answer.Verdict) + ": ")
		if err := why.WriteText(&text, &answer); err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(string(want), text.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !names[file] {
			t.Errorf("%s belongs to no situation", file)
		}
	}
}

// TestHostMode wants the same answers in host mode, as far as a mode makes no
// difference.
func TestHostMode(t *testing.T) {
	for _, mechanism := range []plan.Mechanism{plan.DNAT, plan.TPROXY} {
		s := calm()
		s.redirect.Mode, s.redirect.Mechanism, s.options.HostMode = plan.HostMode, mechanism, true
		answer := why.Explain(s.in(), s.pair)
		if want := "Calls of shop/client to shop/api:80 (10.96.0.10:80) go through Envoy, as HTTP, to 3 backends."; answer.Sentence != want {
			t.Errorf("%s: %s", mechanism, answer.Sentence)
		}
		for _, l := range answer.Chain {
			if l.Name == "rule" && (l.Rule == nil || l.Rule.Packets == nil || *l.Rule.Packets != 7 || !strings.Contains(l.Rule.Spec, "nodevoy-http4")) {
				t.Errorf("%s: %+v", mechanism, l)
			}
		}
	}
}

// TestQuestions is what names and addresses are understood as.
func TestQuestions(t *testing.T) {
	s := calm()
	s.addService("shop", "two", "10.96.0.20", port("a", 1, ""), port("b", 2, ""))
	s.addService("other", "api", "10.96.0.30", port("http", 80, ""))
	node := model.Build(s.objects, s.options)
	for to, want := range map[string]string{
		"api": "10.96.0.10:80", "api:http": "10.96.0.10:80", "svc/api:80": "10.96.0.10:80", "other/api:80": "10.96.0.30:80", "api.other:80": "10.96.0.30:80",
		"api.other.svc:80": "10.96.0.30:80", "api.other.svc.cluster.local.:80": "10.96.0.30:80", "other/svc/api:80": "10.96.0.30:80",
		"two": "a port is needed, one of 1 (a), 2 (b)", "two:b": "10.96.0.20:2", "10.96.0.10": "a port's number is needed", "10.96.0.10:http": "a port's number is needed",
		"a/b/c:80": "not understood", "::1": "a port's number is needed", "": "both ends",
	} {
		pair, err := why.Resolve(node, why.Question{From: "shop/client", To: to})
		got := pair.To.Address.String()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q is %s, want %s", to, got, want)
		}
	}
	for from, want := range map[string]string{
		"shop/client": "10.244.1.2", "pod/client": "invalid IP", "shop/pod/client": "10.244.1.2", "10.244.1.2": "10.244.1.2", "fd00:10:244:1::2": "10.244.1.2",
		"shop/": "not understood",
	} {
		pair, err := why.Resolve(node, why.Question{From: from, To: "shop/api:80"})
		got := pair.From.IP.String()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q is %s, want %s", from, got, want)
		}
	}
}

// TestOtherFamily asks about an address of a pod and a destination of the other family,
// which the pod calls from its other address.
func TestOtherFamily(t *testing.T) {
	s := calm()
	s.addService("shop", "six", "fd96::10", port("http", 80, "http"))
	s.addEndpoints("shop", "six", ready("fd00:10:244:2::5", "api-2", "node-b"))
	s.question = why.Question{From: "10.244.1.2", To: "[fd96::10]:80"}
	if answer := why.Explain(s.in(), s.pair); answer.Verdict != why.Envoy || answer.From.Address != "fd00:10:244:1::2" {
		t.Errorf("%s: %s", answer.Verdict, answer.Sentence)
	}
}

// FuzzQuestions wants an answer to whatever is asked, in one line, or an error.
func FuzzQuestions(f *testing.F) {
	for _, seed := range [][2]string{
		{"shop/client", "api:80"},
		{"", ":"},
		{"/", "a.:1"},
		{"10.244.1.2", "10.96.0.10:80"},
		{"::", "[::]:0"},
		{"a/b/c/d", "svc/svc/api"},
		{"fe80::1%x", "fe80::1%y:1"},
		{"shop/client", "."},
		{"shop/client", "api.shop.svc:http"},
		{"shop/client", "[]:1"},
		{"shop/client", "shop/:80"},
		{"shop/client\n", "ap\x00i:80"},
	} {
		f.Add(seed[0], seed[1])
	}
	s := calm()
	in := s.in()
	f.Fuzz(func(t *testing.T, from, to string) {
		pair, err := why.Resolve(in.Model, why.Question{From: from, To: to})
		if err != nil {
			return
		}
		answer := why.Explain(in, pair)
		answer.Apply(strconv.QuoteToASCII)
		var text bytes.Buffer
		if err := why.WriteText(&text, &answer); err != nil {
			t.Fatal(err)
		}
		if answer.Sentence == strconv.QuoteToASCII("") || answer.Verdict == "" || strings.ContainsAny(answer.Sentence, "\n\x00\x1b") {
			t.Errorf("%q to %q: %q %q", from, to, answer.Verdict, answer.Sentence)
		}
	})
}

// TestStarting wants an agent that knows nothing yet to say so.
func TestStarting(t *testing.T) {
	in := why.Input{Now: now(), Agent: why.Agent{Node: "node-a", At: now(), Starting: true, Reason: "Kubernetes objects are not all read yet"}}
	answer := why.NotReady(in, why.Question{From: "shop/client", To: "api:80"})
	if answer.Verdict != why.Unsure || answer.Sentence != "Can't tell: the agent of node-a has not read all Kubernetes objects yet." {
		t.Errorf("%s: %s", answer.Verdict, answer.Sentence)
	}
}

// TestApply wants every text of users to be escaped.
func TestApply(t *testing.T) {
	s := calm()
	s.service("api").Spec.Ports[0].AppProtocol = new("evil\x1b[31m\n")
	answer := why.Explain(s.in(), s.pair)
	answer.Apply(func(text string) string {
		return strings.Map(func(r rune) rune {
			if r < ' ' {
				return '?'
			}
			return r
		}, text)
	})
	var text bytes.Buffer
	if err := why.WriteText(&text, &answer); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text.String(), "\x1b") || !strings.Contains(text.String(), "evil?[31m?") {
		t.Errorf("not escaped:\n%q", text.String())
	}
}
