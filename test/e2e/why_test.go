// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodevoy/nodevoy/agent/why"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// asked is a question to `nodevoy why`, and the answer that is wanted.
type asked struct {
	what, from, to string
	flags          []string
	verdict        why.Verdict
	// sentence is the whole sentence, or with … at its end how it begins.
	sentence string
	// caller, if set, calls what is asked about, by HTTP unless said otherwise, which is to
	// go by Envoy if the verdict is that.
	caller           *lab.Pod
	target, protocol string
}

// codes are the exit codes of verdicts.
func codes() map[why.Verdict]int {
	return map[why.Verdict]int{why.Envoy: 0, why.Untouched: 0, why.Bypassed: 4, why.Fails: 4, why.Unsure: 5}
}

// TestWhy makes one fault after another and asks where calls go. The answer names the
// fault, and is what calls do.
func TestWhy(t *testing.T) { each(t, modes(), testWhy) }

func testWhy(t *testing.T, w *fixture) {
	x := newWhyFixture(t, w)
	w.startAgent(t, "--redirect-timeout", switchTime.String(), "--max-connections-per-pod", "6", "--flows", "all")
	w.startEnvoy(t)
	must(w.agent.WaitRedirected(limit(t), w.client))(t)
	for _, q := range append(x.ofObjects(), x.ofLabels()...) {
		t.Run(q.what, func(t *testing.T) { w.askWhy(t, q) })
	}
	t.Run("the counter of the rule", w.testWhyCounter)
	t.Run("flows", w.testWhyFlows)
	t.Run("TLS behind an http name", w.testWhyTLS)
	t.Run("faults in the kernel", w.testWhyKernel)
	t.Run("over a limit", w.testWhyLimit)
	if w.variant.Mode == lab.Pods {
		t.Run("faults in a pod", x.testPods)
	}
	t.Run("without an agent", w.testWhyAlone)
	t.Run("without Envoy", w.testWhyEnvoy)
}

// switchTime is how long pods stay redirected without the agent.
const switchTime = 5 * time.Second

// askWhy asks until the answer is the one wanted: what was just done takes the agent a
// moment. Then it has the call made that is asked about.
func (w *fixture) askWhy(t *testing.T, q asked) why.Answer {
	t.Helper()
	var got why.Answer
	check(t, waitFor(t, 10*time.Second, func() error {
		answer, code, err := w.node.Why(limit(t), q.from, q.to, q.flags...)
		got = answer
		if err != nil {
			return err
		}
		return q.check(&answer, code)
	}))
	if q.caller == nil {
		return got
	}
	failed, timeout := q.verdict == why.Fails, 2*time.Second
	if failed {
		timeout /= 4 // Where nobody answers at all.
	}
	r := call(t, q.caller, echo.Spec{Protocol: cmp.Or(q.protocol, echo.HTTP1), Target: q.target, Requests: 1, Timeout: timeout})
	if (r.Failed > 0) != failed || (r.Relayed > 0) != (q.verdict == why.Envoy) {
		t.Errorf("the verdict is %s, but of the call: %+v", q.verdict, r)
	}
	return got
}

// check compares an answer with the one wanted.
func (q *asked) check(a *why.Answer, code int) error {
	begin, cut := strings.CutSuffix(q.sentence, "…")
	if a.Verdict != q.verdict || a.Sentence != begin && (!cut || !strings.HasPrefix(a.Sentence, begin)) {
		return fmt.Errorf("%s: %s\nwant %s: %s", a.Verdict, a.Sentence, q.verdict, q.sentence)
	}
	if want := codes()[a.Verdict]; code != want {
		return fmt.Errorf("exit code %d of verdict %s, want %d", code, a.Verdict, want)
	}
	breaks := false
	for _, l := range a.Chain {
		breaks = breaks || l.State == why.Broken
	}
	if want := a.Verdict == why.Bypassed || a.Verdict == why.Fails; breaks != want {
		return fmt.Errorf("a link is broken: %v, of verdict %s: %+v", breaks, a.Verdict, a.Chain)
	}
	return nil
}

// whyFixture is the fixture with pods and Services of every kind.
type whyFixture struct {
	*fixture
	optedOut, ruled *lab.Pod
}

func newWhyFixture(t *testing.T, w *fixture) *whyFixture {
	t.Helper()
	x := &whyFixture{fixture: w}
	x.optedOut = must(w.node.AddPod("shop", "old", map[string]string{"nodevoy.io/redirect": "disabled"}))(t)
	if w.variant.Mode == lab.Pods {
		x.ruled = must(w.node.AddPod("shop", "ruled", nil))(t)
	}
	bare := func(name string, change func(*corev1.Pod)) {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID("uid-bare-" + name)},
			Spec:       corev1.PodSpec{NodeName: w.node.Name}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
		}
		change(p)
		w.Objects().Set(p)
	}
	bare("young", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending })
	bare("host", func(p *corev1.Pod) { p.Spec.HostNetwork, p.Status.PodIP = true, w.node.IPs[0].String() })
	w.Objects().SetNamespace("kube-system", nil)
	set := func(namespace, name, ip string, pods []*lab.Pod, ports ...corev1.ServicePort) *corev1.Service {
		w.Objects().SetService(lab.Service{Namespace: namespace, Name: name, IPs: addrs(ip), Ports: ports, Pods: pods})
		return w.Objects().Service(namespace, name)
	}
	http := lab.Port("http", 80, echo.HTTPPort)
	http.AppProtocol = &http.Name
	set("shop", "db", "10.96.1.1", w.web, http).Spec.ClusterIP = corev1.ClusterIPNone
	w.Objects().Service("shop", "db").Spec.ClusterIPs = []string{corev1.ClusterIPNone}
	set("shop", "empty", "10.96.1.2", nil, http)
	set("shop", "local", "10.96.1.3", w.web[1:], http).Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	set("shop", "sticky", "10.96.1.4", w.web, http).Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	set("shop", "blob", "10.96.1.5", w.web[:1], lab.Port("blob", 7777, echo.TCPPort))
	set("kube-system", "dns", "10.96.1.6", w.web, http)
	set("shop", "secured", "10.96.1.7", w.web[1:2], lab.Port("http-secured", 81, 7443))
	check(t, w.serveTLS(t, w.web[1], 7443))
	check(t, w.Publish(limit(t)))
	return x
}

// ofObjects are questions of which the answer is what the destination is.
func (x *whyFixture) ofObjects() []asked {
	const from = "shop/client"
	web2 := x.web[1].IPs[0]
	return []asked{
		{
			what: "all well", from: from, to: "web:80", verdict: why.Envoy, flags: []string{"--live"}, caller: x.client, target: web4 + ":80",
			sentence: "Calls of shop/client to shop/web:80 (10.96.0.10:80) go through Envoy, as HTTP, to 3 backends.",
		},
		{
			what: "IPv6", from: from, to: web6 + ":80", verdict: why.Envoy, flags: []string{"--live"}, caller: x.client, target: web6 + ":80",
			sentence: "Calls of shop/client to shop/web:80 ([fd00:10:96::10]:80) go through Envoy, as HTTP, to 3 backends.",
		},
		{
			what: "headless", from: from, to: "db:80", verdict: why.Untouched,
			sentence: "nodevoy does not touch this: Service shop/db is headless, so that its clients call pods' addresses.",
		},
		{
			what: "no endpoints", from: from, to: "empty:80", verdict: why.Fails, caller: x.client, target: "10.96.1.2:80",
			sentence: "Calls of shop/client to shop/empty:80 (10.96.1.2:80) fail: it has no endpoints. kube-proxy, if the node has one, refuses them.",
		},
		{
			what: "Local policy with no local one", from: from, to: "local:80", verdict: why.Fails,
			sentence: "Calls of shop/client to shop/local:80 (10.96.1.3:80) fail: internalTrafficPolicy is Local, and none of its 2 endpoints is on this node. …",
		},
		{
			what: "wrong port", from: from, to: "web:81", verdict: why.Fails, caller: x.client, target: web4 + ":81",
			sentence: "Calls of shop/client to shop/web:81 fail: Service shop/web has no port 81. It has 80 (http), …",
		},
		{
			what: "wrong Service name", from: from, to: "webb.shop.svc.cluster.local:80", verdict: why.Fails,
			sentence: "Calls of shop/client to shop/webb:80 fail: there is no Service shop/webb. Is shop/web meant?",
		},
		{
			what: "undeclared port taken for tcp", from: from, to: "blob:7777", verdict: why.Envoy, caller: x.client, protocol: echo.TCP, target: "10.96.1.5:7777",
			sentence: "Calls of shop/client to shop/blob:7777 (10.96.1.5:7777) go through Envoy, as plain TCP (no declared protocol; appProtocol declares it), to 1 backend.",
		},
		{
			what: "affinity left to kube-proxy", from: from, to: "sticky:80", verdict: why.Untouched, caller: x.client, target: "10.96.1.4:80",
			sentence: "nodevoy does not touch this: it leaves shop/sticky:80 (10.96.1.4:80) to kube-proxy: sessionAffinity ClientIP.",
		},
		{
			what: "excluded namespace", from: from, to: "kube-system/dns:http", verdict: why.Untouched, caller: x.client, target: "10.96.1.6:80",
			sentence: "nodevoy does not touch this: it leaves kube-system/dns:80 (10.96.1.6:80) to kube-proxy: namespace kube-system is excluded.",
		},
		{
			what: "a call to a pod's address", from: from, to: fmt.Sprintf("%s:8080", web2), verdict: why.Untouched, caller: x.client, target: fmt.Sprintf("%s:8080", web2),
			sentence: fmt.Sprintf("nodevoy does not touch this: %s is the address of pod shop/web-2, and not of a Service.", web2),
		},
	}
}

// ofLabels are questions of which the answer is what the caller is.
func (x *whyFixture) ofLabels() []asked {
	const to = "shop/web:80"
	return []asked{
		{
			what: "not labelled", from: x.outsider.IPs[0].String(), to: to, verdict: why.Untouched, caller: x.outsider, target: web4 + ":80",
			sentence: "nodevoy does not touch this: namespace other is not labelled nodevoy.io/redirect=enabled.",
		},
		{
			what: "opted out", from: "shop/old", to: to, verdict: why.Untouched, caller: x.optedOut, target: web4 + ":80",
			sentence: "nodevoy does not touch this: pod shop/old has the label nodevoy.io/redirect=disabled.",
		},
		{
			what: "hostNetwork", from: "shop/host", to: to, verdict: why.Untouched,
			sentence: "nodevoy does not touch this: pod shop/host uses the node's network (hostNetwork).",
		},
		{
			what: "pod too young", from: "shop/young", to: to, verdict: why.Untouched,
			sentence: "nodevoy does not touch this: pod shop/young is too young: it has no IP address yet.",
		},
		{
			what: "another node's pod", from: "shop/web-2", to: to, verdict: why.Unsure,
			sentence: "Can't tell: shop/web-2 is on node node-b, whose agent knows.",
		},
	}
}

// testWhyCounter wants the counter of the rule to be the kernel's, and those of backends
// Envoy's.
func (w *fixture) testWhyCounter(t *testing.T) {
	counters := func() (packets, requests uint64) {
		answer, _, err := w.node.Why(limit(t), "shop/client", "web:80", "--live")
		check(t, err)
		for _, l := range answer.Chain {
			if l.Rule != nil && l.Rule.Packets != nil {
				packets = *l.Rule.Packets
			}
			for _, b := range l.Backends {
				if b.Seen == nil || !b.Seen.Healthy {
					t.Errorf("backend %s in Envoy: %+v", b.Address, b.Seen)
					continue
				}
				requests += b.Seen.Total
			}
		}
		return packets, requests
	}
	packets, requests := counters()
	const calls = 3
	call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Requests: calls, Fresh: true, Timeout: 2 * time.Second})
	if p, r := counters(); p != packets+calls || r != requests+calls || packets == 0 {
		t.Errorf("by the answers there were %d connections and %d requests, and after %d more %d and %d", packets, requests, calls, p, r)
	}
}

// testWhyFlows wants the flows of the pair to be told, and to be asked about.
func (w *fixture) testWhyFlows(t *testing.T) {
	var id int
	check(t, waitFor(t, 5*time.Second, func() error {
		answer, _, err := w.node.Why(limit(t), "shop/client", "web:80")
		if err != nil {
			return err
		}
		last := answer.Chain[len(answer.Chain)-1]
		if last.Name != "flows" || last.State != why.OK || len(last.Evidence) == 0 || !strings.Contains(last.Evidence[0], "GET / answered 200 by") {
			return fmt.Errorf("the last link is %+v", last)
		}
		_, err = fmt.Sscanf(last.Evidence[0], "flow %d,", &id)
		return err
	}))
	answer, code, err := w.node.Why(limit(t), "", "", "--flow", fmt.Sprint(id))
	check(t, err)
	if code != 0 || answer.From.Name != "client" || answer.To.Address != web4+":80" {
		t.Errorf("of flow %d, exit code %d: %+v", id, code, answer)
	}
}

// testWhyTLS makes a call by TLS to a port that is named as HTTP.
func (w *fixture) testWhyTLS(t *testing.T) {
	q := asked{
		from: "shop/client", to: "secured:81", verdict: why.Envoy,
		sentence: "Calls of shop/client to shop/secured:81 (10.96.1.7:81) go through Envoy, with their protocol detected (port name http-secured, HTTP not seen yet), to 1 backend.",
	}
	w.askWhy(t, q)
	must(w.client.Run(limit(t), "sh", "-c", "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -connect 10.96.1.7:81 2>/dev/null"))(t)
	q.sentence = "Calls of shop/client to shop/secured:81 (10.96.1.7:81) go through Envoy, as plain TCP (port name http-secured, but TLS was seen), to 1 backend."
	w.askWhy(t, q)
}

// testWhyKernel damages what is in the kernel, each time again until the answer is of
// before the repair.
func (w *fixture) testWhyKernel(t *testing.T) {
	const past = "Calls of shop/client to shop/web:80 (10.96.0.10:80) go past Envoy, to kube-proxy: "
	chain := map[lab.Mode]string{lab.Host: plan.ChainPrerouting, lab.Pods: plan.ChainOutput}[w.variant.Mode]
	for _, c := range []struct{ what, script, sentence string }{
		{"rule missing", "rule=$(iptables-nft-save -t nat | grep 'NODEVOY.* --match-set nodevoy-http4 dst,dst -j [RD]') && iptables-nft -w -t nat -D ${rule#-A }", past + `in the kernel, the rule "-A ` + chain + ` …`},
		{"set entry missing", "ipset del nodevoy-http4 10.96.0.10,tcp:80", past + "the kernel's set nodevoy-http4 lacks 10.96.0.10:80. The agent repairs that within 5 seconds."},
	} {
		q := asked{from: "shop/client", to: "web:80", verdict: why.Bypassed, sentence: c.sentence}
		check(t, waitFor(t, 20*time.Second, func() error {
			if _, err := w.netns().Run(limit(t), "bash", "-c", c.script); err != nil {
				return err
			}
			answer, code, err := w.node.Why(limit(t), q.from, q.to, "--live")
			return errors.Join(err, q.check(&answer, code))
		}))
		w.askWhy(t, asked{from: q.from, to: q.to, flags: []string{"--live"}, verdict: why.Envoy, sentence: "Calls of shop/client …"})
	}
}

// testWhyLimit has the client make more connections than are redirected.
func (w *fixture) testWhyLimit(t *testing.T) {
	load := must(w.client.Load(echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Connections: 16, Rate: 100, Fresh: true, Delay: 300 * time.Millisecond, Timeout: 5 * time.Second}))(t)
	w.askWhy(t, asked{
		from: "shop/client", to: "web:80", flags: []string{"--live"}, verdict: why.Bypassed,
		sentence: "Calls of shop/client to shop/web:80 (10.96.0.10:80), as far as they need new connections, go past Envoy, to kube-proxy: shop/client is at its limit of redirected connections.",
	})
	stop(t, "calls above the limit", load)
}

// testPods asks about pods that are not redirected for reasons of their own.
func (x *whyFixture) testPods(t *testing.T) {
	at := func(pod string) string {
		return "Calls of shop/" + pod + " to shop/web:80 (10.96.0.10:80) go past Envoy, to kube-proxy: pod shop/" + pod + " is not redirected: "
	}
	must(x.ruled.Run(limit(t), "iptables", "-w", "-t", "nat", "-I", "OUTPUT", "-p", "tcp", "--dport", "4567", "-j", "REDIRECT", "--to-ports", "1"))(t)
	// The agent would take other ports if it began with a pod like this.
	taker := must(x.node.AddPod("shop", "taker", nil))(t)
	app := must(taker.Netns().Listen(fmt.Sprintf(":%d", plan.DefaultConfig().Ports.HTTP)))(t)
	t.Cleanup(func() { _ = app.Close() })
	check(t, x.PublishObjects())
	x.askWhy(t, asked{from: "shop/taker", to: "web:80", verdict: why.Bypassed, sentence: at("taker") + "the pod itself listens on a port of Envoy's…", caller: taker, target: web4 + ":80"})
	x.askWhy(t, asked{from: "shop/ruled", to: "web:80", verdict: why.Bypassed, sentence: at("ruled") + "the pod has nat rules of its own…", caller: x.ruled, target: web4 + ":80"})
}

// testWhyAlone stops the agent, so that it answers nothing, and lets the switch expire.
func (w *fixture) testWhyAlone(t *testing.T) {
	check(t, syscall.Kill(w.agent.PID(), syscall.SIGSTOP))
	alone := func(from, sentence string) error {
		answer, code, err := w.node.Why(limit(t), from, "10.96.0.10:80", "--timeout", "300ms")
		switch begin := strings.TrimSuffix(sentence, "…"); {
		case err != nil:
			return err
		case code != 3 || !strings.HasPrefix(answer.Sentence, begin):
			return fmt.Errorf("exit code %d: %s", code, answer.Sentence)
		}
		return nil
	}
	check(t, alone(w.client.IPs[0].String(), "The agent of this node does not answer. What it left redirects 1 address to Envoy, for …"))
	check(t, alone(w.outsider.IPs[0].String(), "Calls go past Envoy, to kube-proxy: the agent of this node does not answer, and nothing that it left redirects them any more."))
	check(t, waitFor(t, 2*switchTime, func() error {
		return alone("shop/client", "Calls go past Envoy, to kube-proxy: the agent of this node does not answer, and nothing that it left redirects them any more.")
	}))
	r := call(t, w.client, w.probe())
	if r.Failed+r.Relayed > 0 {
		t.Errorf("after the switch has expired: %+v", r)
	}
	check(t, syscall.Kill(w.agent.PID(), syscall.SIGCONT))
}

// testWhyEnvoy kills Envoy, and has the next one find a port of its own taken.
func (w *fixture) testWhyEnvoy(t *testing.T) {
	check(t, w.envoy.Kill())
	const past = "Calls of shop/client to shop/web:80 (10.96.0.10:80) go past Envoy, to kube-proxy: "
	w.askWhy(t, asked{
		from: "shop/client", to: "web:80", verdict: why.Bypassed, caller: w.client, target: web4 + ":80",
		sentence: past + "this node redirects nothing now: no Envoy is connected.",
	})
	if w.variant.Mode == lab.Host {
		taker := must(w.node.Netns().Listen(netip.AddrPortFrom(plan.DefaultConfig().Address4, plan.DefaultConfig().Ports.HTTP).String()))(t)
		t.Cleanup(func() { _ = taker.Close() })
		w.startEnvoy(t)
		w.askWhy(t, asked{
			from: "shop/client", to: "web:80", verdict: why.Bypassed, caller: w.client, target: web4 + ":80",
			sentence: past + "Envoy refused listener http-v4: cannot bind '169.254.64.15:23722'…",
		})
	}
	check(t, w.agent.Kill())
	answer, code, err := w.node.Why(limit(t), "shop/client", "web:80")
	check(t, err)
	if code != 3 || !strings.Contains(answer.Chain[0].Text, "is not running on this node") {
		t.Errorf("of an agent that is dead, exit code %d: %+v", code, answer)
	}
}
