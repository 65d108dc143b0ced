// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/nodevoy/nodevoy/test/lab"
)

// The churn of a large cluster.
const (
	stormRate   = 50 // changes of EndpointSlices a second
	stormTime   = time.Minute
	loneChanges = 60
	// Between two lone changes everything comes to rest, and the agent saves up the
	// processor time of a round.
	lonePause = time.Second
	// createRate is how many objects are created a second, a Service and an
	// EndpointSlice in turn. createTime of it, at half the size of the cluster, is
	// scaled up to the creation of the whole cluster.
	createRate = 40
	createTime = 30 * time.Second
)

// BenchmarkChurn measures what changes cost the agent and kube-proxy, each on a
// node of its own that follows the same API server: their processor time while a
// large cluster is created and while its EndpointSlices change, their memory, and
// how long a change takes to be in Envoy. NODEVOY_KUBE_PROXY_MODE is kube-proxy's
// mode. It runs once, with -benchtime 1x.
func BenchmarkChurn(b *testing.B) {
	for b.Loop() {
		w := newFixture(b)
		proxyNode := must(w.lab.AddNode("node-b"))(b)
		w.setNamespace(b, "enabled")
		w.server.Fill(b, manyServices/2, endpointsEach)
		w.start(b)
		proxy := w.startKubeProxy(b, proxyNode)
		until(b, time.Minute, "redirection", w.client.Redirected)
		until(b, soon, "calls through Envoy", w.answers(web4+":80", true, w.web...))
		c := &churn{fixture: w, proxy: proxy, client: w.server.Client(b)}
		c.pause(b, 10*time.Second)

		c.during(b, "create", func() { c.create(b) })
		w.server.Fill(b, manyServices, endpointsEach)
		c.pause(b, 30*time.Second)

		c.reportLatency(b, "lone", c.loneChanges(b))
		c.during(b, "storm", func() { c.storm(b, stormTime) })
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.storm(b, loneChanges*(lonePause+100*time.Millisecond))
		}()
		c.reportLatency(b, "in-storm", c.loneChanges(b))
		<-ended
		b.ReportMetric(float64(must(w.agent.RSS())(b)>>20), "agent-MiB")
		b.ReportMetric(float64(must(proxy.RSS())(b)>>20), "kube-proxy-MiB")
	}
}

// churn is a fixture with a kube-proxy beside.
type churn struct {
	*fixture
	proxy  *lab.Process
	client *kubernetes.Clientset
}

// startKubeProxy starts the real kube-proxy on a node.
func (w *fixture) startKubeProxy(t testing.TB, node *lab.Node) *lab.Process {
	t.Helper()
	mode := cmp.Or(os.Getenv("NODEVOY_KUBE_PROXY_MODE"), "nftables")
	return run(t, node, "kube-proxy",
		"--kubeconfig="+w.server.AdminKubeconfig(t), "--hostname-override="+node.Name, "--proxy-mode="+mode,
		"--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249",
		// The lab's kernel settings are not its to change.
		"--conntrack-max-per-core=0", "--conntrack-min=0",
		"--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
	)
}

// during reports the processor time that both used while something went on, in
// seconds, and as a share of one core.
func (c *churn) during(b *testing.B, what string, work func()) {
	b.Helper()
	began := time.Now()
	agent, proxy := must(c.agent.TreeCPU())(b), must(c.proxy.TreeCPU())(b)
	work()
	agent, proxy = must(c.agent.TreeCPU())(b)-agent, must(c.proxy.TreeCPU())(b)-proxy
	took := time.Since(began)
	for _, used := range []struct {
		name string
		cpu  time.Duration
	}{{"agent", agent}, {"kube-proxy", proxy}} {
		b.ReportMetric(used.cpu.Seconds(), fmt.Sprintf("%s-%s-cpu-s", what, used.name))
		b.ReportMetric(100*used.cpu.Seconds()/took.Seconds(), fmt.Sprintf("%s-%s-%%core", what, used.name))
	}
}

// pause lets everything come to rest.
func (c *churn) pause(b *testing.B, length time.Duration) {
	b.Helper()
	select {
	case <-b.Context().Done():
		b.Fatal(b.Context().Err())
	case <-time.After(length):
	}
}

// create creates Services beyond the first half, and their EndpointSlices.
func (c *churn) create(b *testing.B) {
	tick := time.NewTicker(time.Second / createRate)
	defer tick.Stop()
	count := int(createTime.Seconds() * createRate / 2)
	for number := manyServices / 2; number < manyServices/2+count; number++ {
		for _, r := range fillRecords(number, endpointsEach) {
			<-tick.C
			check(b, c.server.store([]record{r}))
		}
	}
	b.ReportMetric(float64(2*manyServices)/float64(2*count), "create-scale")
}

// storm changes one EndpointSlice after another: an endpoint goes, or comes back.
func (c *churn) storm(b *testing.B, length time.Duration) {
	tick := time.NewTicker(time.Second / stormRate)
	defer tick.Stop()
	count := int(length.Seconds() * stormRate)
	for i := range count {
		number := (i / 2 * 7919) % manyServices
		r := fillRecords(number, endpointsEach)[1]
		if slice, ok := r.object.(*discoveryv1.EndpointSlice); ok && i%2 == 0 {
			slice.Endpoints = slice.Endpoints[1:]
		}
		<-tick.C
		if err := c.server.store([]record{r}); err != nil {
			b.Error(err)
			return
		}
	}
}

// loneChanges takes a backend of shop/web away, or puts it back, and returns how
// long each change took to be in Envoy.
func (c *churn) loneChanges(b *testing.B) []time.Duration {
	b.Helper()
	slicesOf := c.client.DiscoveryV1().EndpointSlices("shop")
	list := must(slicesOf.List(b.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=web"}))(b)
	at := slices.IndexFunc(list.Items, func(s discoveryv1.EndpointSlice) bool { return s.AddressType == discoveryv1.AddressTypeIPv4 })
	whole := list.Items[at]
	whole.ResourceVersion = ""
	var took []time.Duration
	for i := range loneChanges {
		changed := whole.DeepCopy()
		if i%2 == 0 {
			changed.Endpoints = changed.Endpoints[1:]
		}
		began := time.Now()
		must(slicesOf.Update(b.Context(), changed, metav1.UpdateOptions{}))(b)
		c.inEnvoy(b, len(changed.Endpoints))
		took = append(took, time.Since(began))
		c.pause(b, lonePause)
	}
	slices.Sort(took)
	return took
}

// inEnvoy waits until shop/web has so many hosts in Envoy.
func (c *churn) inEnvoy(b *testing.B, count int) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), soon)
	defer cancel()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for ; ; <-poll.C {
		text, err := c.envoy.Admin(ctx, "/clusters")
		check(b, err)
		have := 0
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, web4+":80::") && strings.Contains(line, "::health_flags::") {
				have++
			}
		}
		if have == count {
			return
		}
	}
}

// reportLatency reports the median and the 99th percentile of sorted times.
func (c *churn) reportLatency(b *testing.B, what string, took []time.Duration) {
	b.Helper()
	ms := func(percent int) float64 {
		return float64(took[min(len(took)-1, len(took)*percent/100)].Microseconds()) / 1000
	}
	b.ReportMetric(ms(50), what+"-p50-ms")
	b.ReportMetric(ms(99), what+"-p99-ms")
}
