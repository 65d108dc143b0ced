// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

const (
	// widePorts is the number of ports of one Service, and narrowServices and narrowPorts
	// the number of others and of their ports, that a pod calls, each once. scanners is
	// how many calls it makes at a time.
	widePorts, narrowServices, narrowPorts = 1000, 240, 25
	scannedPorts, scanners                 = widePorts + narrowServices*narrowPorts, 200
	// freshServices are those that the neighbour calls for the first time meanwhile.
	freshServices = 60
	// firstCall is how long the neighbour's first call to a Service may take on a busy
	// machine: some milliseconds on an idle one.
	firstCall = time.Second
	// scanHeap is the bound of Envoy's heap, in bytes.
	scanHeap = 256 << 20
)

// manyPorts are the ports of a Service that has this many, all leading to the echo
// server's HTTP port.
func manyPorts(n int) []corev1.ServicePort {
	ports := make([]corev1.ServicePort, n)
	for i := range ports {
		ports[i] = corev1.ServicePort{
			Name: fmt.Sprintf("http-%d", i), Port: int32(10_000 + i), TargetPort: intstr.FromInt(echo.HTTPPort), Protocol: corev1.ProtocolTCP,
		}
	}
	return ports
}

// scanned are the frontends that the pod calls.
func scanned() (all []netip.AddrPort) {
	add := func(ip string, ports int) {
		for i := range ports {
			all = append(all, netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(10_000+i)))
		}
	}
	add("10.96.7.1", widePorts)
	for i := range narrowServices {
		add(narrowIP(i), narrowPorts)
	}
	return all
}

func narrowIP(i int) string { return fmt.Sprintf("10.96.9.%d", i+1) }

// scanFlags have Envoy run short of memory. Without a limit of connections, as that alone
// would leave most of a fast scan to kube-proxy.
func scanFlags() []string {
	return []string{"--cluster-memory", "96Mi", "--max-connections-per-pod", "0"}
}

// TestScan has a pod call each of 7,000 ports once, which is more than Envoy has memory
// for: a thousand of one Service, and a few of each of many. A neighbour that opens new connections to a Service it uses,
// and to others for the first time, sees nothing of it; the node stays redirected.
func TestScan(t *testing.T) { each(t, []variant{hostRouted(), podRouted()}, testScan) }

func testScan(t *testing.T, w *fixture) {
	w.Objects().SetNamespace("scan", map[string]string{"nodevoy.io/redirect": "enabled"})
	scanner := must(w.node.AddPod("scan", "scanner", nil))(t)
	w.Objects().SetService(lab.Service{
		Namespace: "scan", Name: "wide", IPs: addrs("10.96.7.1"), Ports: manyPorts(widePorts), Pods: w.web[:1],
	})
	for i := range narrowServices {
		w.Objects().SetService(lab.Service{
			Namespace: "scan", Name: fmt.Sprintf("narrow-%d", i), IPs: addrs(narrowIP(i)), Ports: manyPorts(narrowPorts), Pods: w.web[:1],
		})
	}
	w.Objects().SetService(lab.Service{Namespace: "scan", Name: "tcp", IPs: addrs("10.96.7.2"), Ports: lab.EchoPorts(), Pods: w.web[:1]})
	for i := range freshServices {
		w.Objects().SetService(lab.Service{
			Namespace: "shop", Name: fmt.Sprintf("fresh-%d", i), IPs: addrs(fmt.Sprintf("10.96.8.%d", i+1)), Ports: manyPorts(1), Pods: w.web,
		})
	}
	check(t, w.Publish(limit(t)))
	w.envoy = must(w.node.StartEnvoyWith(limit(t), lab.EnvoyOptions{Bootstrap: []string{"--envoy-max-heap", fmt.Sprint(scanHeap)}}))(t)
	w.startAgent(t, scanFlags()...)
	must(w.agent.WaitRedirected(limit(t), w.client))(t)
	must(w.agent.WaitRedirected(limit(t), scanner))(t)

	known := must(w.client.Load(echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Rate: 20, Connections: 4, Fresh: true, Timeout: 10 * time.Second}))(t)
	kept := must(w.client.Load(echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Rate: 20, Timeout: 10 * time.Second}))(t)
	held := must(scanner.Load(echo.Spec{Protocol: echo.HTTP1, Target: "10.96.7.1:10000", Rate: 2, Timeout: 10 * time.Second}))(t)
	heldTCP := must(scanner.Load(echo.Spec{Protocol: echo.TCP, Target: "10.96.7.2:7000", Rate: 2, Timeout: 10 * time.Second}))(t)
	traffic{"held": held, "held TCP": heldTCP}.untilAnswered(t)
	began := time.Now()
	failed := scan(t, scanner)
	var first []time.Duration
	for i := range freshServices {
		r := must(w.client.CallHere(t.Context(), echo.Spec{
			Protocol: echo.HTTP1, Target: fmt.Sprintf("10.96.8.%d:10000", i+1), Requests: 1, Timeout: 10 * time.Second,
		}))(t)
		if r.Failed > 0 {
			t.Errorf("the first call to Service %d failed after %s: %v", i, time.Since(began), r.Errors)
		}
		first = append(first, r.First)
	}
	lost := <-failed
	took := time.Since(began)
	newConnections, keptAlive := stop(t, "new connections", known), stop(t, "kept alive", kept)
	slices.Sort(first)
	t.Logf("scan of %d ports in %s, %d failed; neighbour: first call p50 %s, max %s; new connections p50 %s, p99 %s, max %s; kept alive p50 %s, p99 %s, max %s",
		scannedPorts, took, lost, first[len(first)/2], first[len(first)-1], newConnections.P50, newConnections.P99, newConnections.Max, keptAlive.P50, keptAlive.P99, keptAlive.Max)
	// What a connection that Envoy has already waits for is the machine's doing.
	if worst, most := first[len(first)-1], max(firstCall, 2*keptAlive.Max); worst > most {
		t.Errorf("a first call took %s, want at most %s", worst, most)
	}
	w.untilLeft(t)
	// Connections that were there before go on through Envoy.
	for what, load := range map[string]*lab.Load{"held": held, "held TCP": heldTCP} {
		r := stop(t, what, load)
		if r.Relayed != r.Requests || r.Connections != 1 {
			t.Errorf("%s: %d of %d requests went through Envoy, on %d connections, want all on one", what, r.Relayed, r.Requests, r.Connections)
		}
	}
	if rss := must(w.envoy.RSS())(t); rss > scanHeap {
		t.Errorf("Envoy has %d MiB, want at most %d", rss>>20, scanHeap>>20)
	}
	w.untilPath(t, 10*time.Second, true)
	w.restartAfterScan(t)
	if n := strings.Count(w.agent.Output(), "redirection stopped"); n > 0 {
		t.Errorf("redirection was stopped %d times", n)
	}
}

// restartAfterScan restarts the agent. The next one knows nothing of what was left,
// and Envoy asks it for all of it.
func (w *fixture) restartAfterScan(t *testing.T) {
	t.Helper()
	load := must(w.client.Load(echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Rate: 20, Connections: 4, Fresh: true, Timeout: 10 * time.Second}))(t)
	check(t, w.agent.Stop(endLimit))
	w.startAgent(t, scanFlags()...)
	w.untilSettled(t)
	w.untilLeft(t)
	stop(t, "new connections while the agent restarts", load)
	if rss := must(w.envoy.RSS())(t); rss > scanHeap {
		t.Errorf("Envoy has %d MiB after the agent's restart, want at most %d", rss>>20, scanHeap>>20)
	}
	w.untilPath(t, 10*time.Second, true)
}

// untilLeft waits until Envoy has dropped what is left to kube-proxy, with its Services
// named by status, and most of the limit is free again.
func (w *fixture) untilLeft(t *testing.T) {
	t.Helper()
	check(t, waitFor(t, 20*time.Second, func() error {
		s, err := w.node.Status(limit(t))
		if err != nil {
			return err
		}
		m, left := s.Memory, 0
		for service, n := range m.Left {
			if strings.HasPrefix(service, "scan/") {
				left += n
			}
		}
		if m.Used > m.Limit*6/8 || left < scannedPorts/2 || m.Left["scan/wide"] < widePorts*8/10 {
			return fmt.Errorf("%d of %d MiB are used, %d frontends are left, %d of them of scan/wide", m.Used>>20, m.Limit>>20, left, m.Left["scan/wide"])
		}
		return nil
	}))
	text := must(w.node.StatusText(limit(t)))(t)
	if !strings.Contains(text, "LEFT to kube-proxy") || !strings.Contains(text, "scan/wide") {
		t.Errorf("status does not name scan/wide:\n%s", text)
	}
}

// scan calls all that is to be scanned, and then tells how many calls failed.
func scan(t *testing.T, from *lab.Pod) <-chan int {
	t.Helper()
	targets := make(chan netip.AddrPort, scannedPorts)
	for _, target := range scanned() {
		targets <- target
	}
	close(targets)
	var mu sync.Mutex
	var calls sync.WaitGroup
	failed := 0
	for range scanners {
		calls.Go(func() {
			for target := range targets {
				r, err := from.CallHere(t.Context(), echo.Spec{Protocol: echo.HTTP1, Target: target.String(), Requests: 1, Timeout: 10 * time.Second})
				if err != nil || r.Failed > 0 {
					mu.Lock()
					failed++
					mu.Unlock()
				}
			}
		})
	}
	done := make(chan int, 1)
	go func() {
		calls.Wait()
		done <- failed
	}()
	return done
}
