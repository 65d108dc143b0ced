// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/advise"
	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// ask reads what the node's agent answers at a path of its debug endpoint.
func (w *fixture) ask(t *testing.T, path string, query url.Values, into any) error {
	t.Helper()
	a := ask.Socket("", agent.DebugSocket(w.node.RunDir()))
	defer a.Close()
	return a.Get(limit(t), path, query, into)
}

// kernelFlows are the last flows of the kernel's that a pod began after a time.
func (w *fixture) kernelFlows(t *testing.T, from *lab.Pod, after time.Time) ([]flow.Flow, error) {
	t.Helper()
	var all view.Flows
	if err := w.ask(t, "/v1/flows", url.Values{"origin": {"kernel"}, "from": {from.Namespace + "/" + from.Name}}, &all); err != nil {
		return nil, err
	}
	var flows []flow.Flow
	for _, f := range all.Items {
		if f.Open && f.Time.After(after) {
			flows = append(flows, f)
		}
	}
	return flows, nil
}

// called is what a flow should have: "" as backend is for any.
type called struct{ protocol, service, backend string }

// untilKernelFlow waits, no longer than a second, for a flow of a pod.
func (w *fixture) untilKernelFlow(t *testing.T, from *lab.Pod, after time.Time, want called) flow.Flow {
	t.Helper()
	var found flow.Flow
	check(t, waitFor(t, time.Second, func() error {
		flows, err := w.kernelFlows(t, from, after)
		for _, f := range flows {
			if f.Protocol == want.protocol && f.Service.String() == want.service && (want.backend == "" || f.Backend.Name() == want.backend) {
				found = f
				return nil
			}
		}
		return errors.Join(fmt.Errorf("no flow like %v among %v", want, flows), err)
	}))
	return found
}

// TestKernelFlows calls Services while nothing is enrolled, on nodes with kube-proxy in
// both modes: each call is told within a second with its Service and the pod that
// answered. Once the client is enrolled, what goes through Envoy is not told again.
func TestKernelFlows(t *testing.T) {
	each(t, []variant{podBridged(), podRouted(), hostBridged(), hostRouted()}, func(t *testing.T, w *fixture) {
		w.Objects().SetNamespace("shop", nil)
		w.Objects().SetService(lab.Service{
			Namespace: "shop", Name: "names", IPs: addrs("10.96.0.53"), Pods: w.web[1:2],
			Ports: []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP, TargetPort: lab.Port("", 53, 5353).TargetPort}},
		})
		check(t, w.Publish(limit(t)))
		w.startAgent(t)
		check(t, waitFor(t, 10*time.Second, func() error { return w.listening(t) }))

		for _, target := range []string{web4, web6} {
			began := time.Now()
			r := call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: target + ":80", Requests: 1, Fresh: true})
			for pod := range r.Pods {
				f := w.untilKernelFlow(t, w.client, began, called{"TCP", "shop/web/http", pod})
				if want := map[bool]string{true: "node-a", false: "node-b"}[pod == "shop/web-1"]; f.Backend.Node != want || f.Class != "http" {
					t.Errorf("the flow has node %q and class %q, want %s and http: %+v", f.Backend.Node, f.Class, want, f)
				}
			}
		}
		began := time.Now()
		must(w.client.Run(limit(t), "bash", "-c", "echo > /dev/udp/10.96.0.53/53"))(t)
		w.untilKernelFlow(t, w.client, began, called{"UDP", "shop/names/dns", "shop/web-2"})
		began = time.Now()
		call(t, w.client, echo.Spec{Protocol: echo.TCP, Target: fmt.Sprintf("%s:%d", w.web[2].IPs[0], echo.TCPPort), Requests: 1, Fresh: true})
		w.untilKernelFlow(t, w.client, began, called{"TCP", "", "shop/web-3"})

		w.Objects().SetNamespace("shop", map[string]string{"nodevoy.io/redirect": "enabled"})
		check(t, w.Publish(limit(t)))
		w.startEnvoy(t)
		must(w.agent.WaitRedirected(limit(t), w.client))(t)
		w.untilPath(t, 5*time.Second, true)
		began = time.Now()
		w.allThroughEnvoy(t, call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Requests: 10, Fresh: true, OwnPorts: true}))
		call(t, w.outsider, echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Requests: 1, Fresh: true})
		w.untilKernelFlow(t, w.outsider, began, called{"TCP", "shop/web/http", ""})
		if again := must(w.kernelFlows(t, w.client, began))(t); len(again) > 0 {
			t.Errorf("calls through Envoy are told again: %v", again)
		}
	})
}

// listening says whether the agent hears of connections.
func (w *fixture) listening(t *testing.T) error {
	began := time.Now()
	call(t, w.outsider, echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Requests: 1, Fresh: true})
	return waitFor(t, time.Second, func() error {
		flows, err := w.kernelFlows(t, w.outsider, began)
		if err == nil && len(flows) == 0 {
			err = fmt.Errorf("no flow")
		}
		return err
	})
}

// TestAdvise has three callers: one with a connection that it keeps, one with many, and
// one that makes a new one for each call. The first is the one that is stuck.
func TestAdvise(t *testing.T) {
	each(t, []variant{podBridged(), podRouted()}, func(t *testing.T, w *fixture) {
		w.Objects().SetNamespace("shop", nil)
		third := must(w.node.AddPod("other", "third", nil))(t)
		check(t, w.Publish(limit(t)))
		w.startAgent(t)
		check(t, waitFor(t, 10*time.Second, func() error { return w.listening(t) }))
		for _, c := range []struct {
			from        *lab.Pod
			connections int
			fresh       bool
		}{{w.client, 1, false}, {w.outsider, 12, false}, {third, 1, true}} {
			load := must(c.from.Load(echo.Spec{
				Protocol: echo.HTTP1, Target: web4 + ":80", Connections: c.connections, Fresh: c.fresh, Rate: 40,
			}))(t)
			t.Cleanup(func() { stop(t, "calls past Envoy", load) })
		}
		var a advise.Advice
		check(t, waitFor(t, 10*time.Second, func() error {
			if err := w.ask(t, "/v1/advise", url.Values{"long": {"2s"}}, &a); err != nil {
				return err
			}
			if len(a.Stuck) != 1 || a.Stuck[0].Caller.Name() != "shop/client" || a.Connections < 13 {
				return fmt.Errorf("stuck: %+v of %d connections", a.Stuck, a.Connections)
			}
			return nil
		}))
		s := a.Stuck[0]
		if s.Service.String() != "shop/web/http" || s.Connections != 1 || s.Backends != 3 || s.Since == nil || !strings.HasPrefix(s.Backend.Name(), "shop/web-") ||
			s.Would != "each request would go to one of the 3 backends" {
			t.Errorf("got %+v", s)
		}
		if len(a.Services) != 1 || a.Services[0].Callers != 3 || len(a.Services[0].Backends) != 3 || a.Services[0].Class != "http" {
			t.Errorf("Services: %+v", a.Services)
		}
		text := must(w.node.Nodevoy(limit(t), "advise", "--long", "2s"))(t)
		if !strings.Contains(text, "shop/client") || !strings.Contains(text, "each request would go to one of the 3 backends") {
			t.Errorf("nodevoy advise prints\n%s", text)
		}
	})
}

// TestKernelFlowsAreSampled makes more connections than are told: others are counted, and
// the agent needs no more than 15 % of a processor.
func TestKernelFlowsAreSampled(t *testing.T) {
	w := newFixture(t, podBridged())
	w.Objects().SetNamespace("shop", nil)
	check(t, w.Publish(limit(t)))
	w.startAgent(t)
	check(t, waitFor(t, 10*time.Second, func() error { return w.listening(t) }))
	// So that ends come, too.
	must(w.node.Run(limit(t), "sysctl", "-w", "net.netfilter.nf_conntrack_udp_timeout=1"))(t)
	before := must(w.agent.CPU())(t)
	began := time.Now()
	// Each is a connection to conntrack, as each has ports of its own.
	out := must(w.outsider.Run(limit(t), "bash", "-c",
		fmt.Sprintf("n=0; while [ $SECONDS -lt 5 ]; do for i in {10001..10200}; do echo > /dev/udp/%s/$i; done; n=$((n+200)); done; echo $n", w.web[0].IPs[0])))(t)
	took := time.Since(began)
	cpu := must(w.agent.CPU())(t) - before
	n := must(strconv.Atoi(strings.TrimSpace(out)))(t)
	var all view.Flows
	check(t, w.ask(t, "/v1/flows", nil, &all))
	t.Logf("%.0f connections a second cost the agent %.1f %% of a processor; %d were sampled out, %d lost",
		float64(n)/took.Seconds(), 100*cpu.Seconds()/took.Seconds(), all.Lost[flow.LossSampled], all.Lost[flow.LossOverrun])
	if cpu > took*15/100 {
		t.Errorf("the agent used %s in %s", cpu, took)
	}
	if all.Lost[flow.LossSampled] == 0 {
		t.Errorf("nothing was sampled out: %+v", all.Counts)
	}
}
