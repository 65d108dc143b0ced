// SPDX-License-Identifier: Apache-2.0

package sourcetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// firstSignalHasTheWhole uses every field the model reads, so that a source
// that drops one gives another view.
func firstSignalHasTheWhole(t *testing.T, h Harness) {
	const ns = "contract-whole"
	web := service(ns, "web", "10.96.201.1")
	web.Spec.Type = corev1.ServiceTypeLoadBalancer
	web.Spec.ExternalIPs = []string{"192.0.2.10"}
	web.Spec.Ports = append(web.Spec.Ports,
		corev1.ServicePort{Name: "wire", Protocol: corev1.ProtocolTCP, Port: 4000, AppProtocol: new("kubernetes.io/h2c")},
		corev1.ServicePort{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53})
	web.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
		{IP: "192.0.2.20", IPMode: new(corev1.LoadBalancerIPModeVIP)},
		{IP: "192.0.2.21", IPMode: new(corev1.LoadBalancerIPModeProxy)},
	}
	local := service(ns, "local", "10.96.201.2")
	local.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	sticky := service(ns, "sticky", "10.96.201.3")
	sticky.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	sticky.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{
		ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(600))},
	}
	optedOut := service(ns, "opted-out", "10.96.201.4")
	optedOut.Labels = map[string]string{model.RedirectLabel: model.RedirectDisabled}
	delegated := service(ns, "delegated", "10.96.201.5")
	delegated.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "other"}
	restricted := service(ns, "restricted", "10.96.201.6")
	restricted.Spec.Type = corev1.ServiceTypeLoadBalancer
	restricted.Spec.LoadBalancerSourceRanges = []string{"198.51.100.0/24"}
	restricted.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.30"}}
	headless := service(ns, "headless", corev1.ClusterIPNone)

	webSlice := endpoints(web, "10.201.0.1", "10.201.0.2", "10.201.0.3")
	webSlice.Endpoints[1].Conditions.Ready = new(false)
	webSlice.Endpoints[0].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "zone-a"}}}
	webSlice.Endpoints[2].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "zone-b"}}}
	localSlice := endpoints(local, "10.201.0.4", "10.201.0.5")
	localSlice.Endpoints[0].Conditions = discoveryv1.EndpointConditions{
		Ready: new(false), Serving: new(true), Terminating: new(true),
	}
	localSlice.Endpoints[1].NodeName = new("another-node")

	all := []Object{
		node(), namespace(ns, model.RedirectEnabled),
		web, local, sticky, optedOut, delegated, restricted, headless,
		webSlice, localSlice, endpoints(sticky, "10.201.0.6"), endpoints(headless, "10.201.0.7"),
	}
	all = append(all, everySortOfPod(ns)...)
	for _, object := range all {
		h.Put(t, object)
	}
	// The first signal promises the whole: no waiting for a second one.
	w := start(t, h, ns)
	if d := diff(viewOf(inputsOf(all), ns), viewOf(w.Inputs(), ns)); d != "" {
		t.Errorf("view at the first signal (-want +got):\n%s", d)
	}
}

func everySortOfPod(ns string) []Object {
	disabled := pod(ns, "disabled", nodeName, "10.201.1.2")
	disabled.Labels[model.RedirectLabel] = model.RedirectDisabled
	host := pod(ns, "host", nodeName, "10.200.0.1")
	host.Spec.HostNetwork = true
	sidecar := pod(ns, "sidecar", nodeName, "10.201.1.4")
	sidecar.Spec.Containers = append(sidecar.Spec.Containers, corev1.Container{Name: "istio-proxy", Image: "example.org/istio:1"})
	early := pod(ns, "sidecar-first", nodeName, "10.201.1.5")
	early.Spec.InitContainers = []corev1.Container{{Name: "linkerd-proxy", Image: "example.org/linkerd:1"}}
	injected := pod(ns, "injected", nodeName, "10.201.1.6")
	injected.Annotations["sidecar.istio.io/status"] = "{}"

	return []Object{
		pod(ns, "client", nodeName, "10.201.1.1"), disabled, host, pod(ns, "starting", nodeName),
		pod(ns, "elsewhere", "another-node", "10.201.1.3"), sidecar, early, injected,
	}
}

func everyChangeIsSignalled(t *testing.T, h Harness) {
	const ns = "contract-changes"
	home, client := namespace(ns, ""), pod(ns, "client", nodeName, "10.202.1.1")
	web := service(ns, "web", "10.96.202.1")
	slice := endpoints(web, "10.202.0.1")
	for _, object := range []Object{node(), home, client, web, slice} {
		h.Put(t, object)
	}
	w := start(t, h, ns)
	w.await(t, "start", node(), home, client, web, slice)

	home = namespace(ns, model.RedirectEnabled)
	h.Put(t, home)
	w.await(t, "namespace labelled", node(), home, client, web, slice)

	second := pod(ns, "second", nodeName, "10.202.1.2")
	h.Put(t, second)
	w.await(t, "pod added", node(), home, client, second, web, slice)

	client.Labels[model.RedirectLabel] = model.RedirectDisabled
	h.Put(t, client)
	w.await(t, "pod opted out", node(), home, client, second, web, slice)

	slice = endpoints(web, "10.202.0.1", "10.202.0.2")
	h.Put(t, slice)
	w.await(t, "endpoint added", node(), home, client, second, web, slice)

	slice.Endpoints[0].Conditions.Ready = new(false)
	h.Put(t, slice)
	w.await(t, "endpoint unready", node(), home, client, second, web, slice)

	h.Delete(t, slice)
	w.await(t, "endpoints gone", node(), home, client, second, web)

	h.Delete(t, second)
	w.await(t, "pod gone", node(), home, client, web)

	h.Delete(t, web)
	w.await(t, "service gone", node(), home, client)

	h.Delete(t, home)
	w.await(t, "namespace gone, pod remains", node(), client)
}

func changesCoalesce(t *testing.T, h Harness) {
	const ns, services = "contract-many", 50
	home := namespace(ns, model.RedirectEnabled)
	h.Put(t, node())
	h.Put(t, home)
	w := start(t, h, ns)
	all := []Object{node(), home}
	for i := range services {
		svc := service(ns, fmt.Sprintf("svc-%d", i), fmt.Sprintf("10.96.203.%d", i+1))
		slice := endpoints(svc, fmt.Sprintf("10.203.0.%d", i+1))
		h.Put(t, svc)
		h.Put(t, slice)
		all = append(all, svc, slice)
	}
	// Nobody listened meanwhile, and the source was not held up by that.
	w.await(t, "all services", all...)
	if n := len(w.Changed()); n > 1 {
		t.Errorf("%d signals wait, want at most one", n)
	}
}

// serviceIsMadeAgain is a Service deleted and made again at the same address.
func serviceIsMadeAgain(t *testing.T, h Harness) {
	const ns = "contract-again"
	home, web := namespace(ns, model.RedirectEnabled), service(ns, "web", "10.96.204.1")
	slice := endpoints(web, "10.204.0.1")
	for _, object := range []Object{node(), home, web, slice} {
		h.Put(t, object)
	}
	w := start(t, h, ns)
	h.Delete(t, slice)
	h.Delete(t, web)
	w.await(t, "service gone", node(), home)
	other := service(ns, "other", "10.96.204.1")
	slice = endpoints(other, "10.204.0.2")
	h.Put(t, other)
	h.Put(t, slice)
	w.await(t, "another service at its address", node(), home, other, slice)
}

// podIPMovesOn is a pod IP reused by another pod as soon as it is free.
func podIPMovesOn(t *testing.T, h Harness) {
	const ns = "contract-reuse"
	home, first := namespace(ns, model.RedirectEnabled), pod(ns, "first", nodeName, "10.205.1.1")
	for _, object := range []Object{node(), home, first} {
		h.Put(t, object)
	}
	w := start(t, h, ns)
	h.Delete(t, first)
	second := pod(ns, "second", nodeName, "10.205.1.1")
	h.Put(t, second)
	w.await(t, "second pod has the IP", node(), home, second)
}

func runEndsWithItsContext(t *testing.T, h Harness) {
	h.Put(t, node())
	source := h.Source(t, nodeName)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx) }()
	<-source.Changed()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("ended with %v, want no error", err)
		}
	case <-time.After(patience):
		t.Errorf("still running %v after its context ended", patience)
	}
}
