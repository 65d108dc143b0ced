// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// What a tenant writes himself, his pod's labels and EndpointSlices, must not let
// his pod pass rules that keep it out. In host mode Envoy calls backends from the
// node's address, which such rules have to let pass.

const ownLabel = "nodevoy.io/redirect"

// TestOwnLabelAndNetworkPolicy has a pod enroll itself of which no backend takes
// connections, as after a NetworkPolicy that denies it.
func TestOwnLabelAndNetworkPolicy(t *testing.T) {
	each(t, []variant{hostBridged(), hostRouted(), podBridged(), podRouted()}, func(t *testing.T, w *fixture) {
		for _, pod := range w.web {
			deny(t, pod, w.outsider)
		}
		w.start(t)
		w.Objects().SetPodLabels(w.outsider, map[string]string{ownLabel: "enabled"})
		check(t, w.Publish(limit(t)))
		if w.variant.Mode == lab.Pods {
			must(w.agent.WaitRedirected(limit(t), w.outsider))(t)
		} else {
			w.untilStatus(t, "outsider", "own label ignored in host mode: namespace is not labelled nodevoy.io/redirect=enabled")
		}
		for _, ip := range []string{web4, web6} {
			r := call(t, w.outsider, echo.Spec{Protocol: echo.HTTP1, Target: ip + ":80", Requests: 3, Fresh: true, Timeout: 500 * time.Millisecond})
			if r.Failed != 3 {
				t.Errorf("a pod that is denied was answered by %v, which saw %v", r.Pods, r.Peers)
			}
			r = call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: ip + ":80", Requests: 3, Fresh: true, Timeout: 2 * time.Second})
			w.allThroughEnvoy(t, r)
			if r.Failed > 0 {
				t.Errorf("a pod that is not denied: %v", r.Errors)
			}
		}
		// A namespace that is out takes its pods along.
		w.Objects().SetNamespace("other", map[string]string{ownLabel: "disabled"})
		check(t, w.Publish(limit(t)))
		w.untilStatus(t, "outsider", "namespace label nodevoy.io/redirect=disabled")
	})
}

// TestOwnLabelWhereItMayEnroll is host mode told to take a namespace's pods at
// their word; the namespace still has the last one.
func TestOwnLabelWhereItMayEnroll(t *testing.T) {
	each(t, []variant{hostBridged()}, func(t *testing.T, w *fixture) {
		w.Objects().SetPodLabels(w.outsider, map[string]string{ownLabel: "enabled"})
		check(t, w.Publish(limit(t)))
		w.start(t, "--pod-opt-in-namespaces", "other")
		must(w.agent.WaitRedirected(limit(t), w.outsider))(t)
		r := call(t, w.outsider, echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Requests: 3, Fresh: true, Timeout: 2 * time.Second})
		if r.Failed > 0 || r.Relayed != 3 {
			t.Errorf("%d of 3 calls failed, %d by Envoy: %v", r.Failed, r.Relayed, r.Errors)
		}
		w.Objects().SetNamespace("other", map[string]string{ownLabel: "disabled"})
		check(t, w.Publish(limit(t)))
		w.untilStatus(t, "outsider", "namespace label nodevoy.io/redirect=disabled")
	})
}

// place is somewhere that pods are kept from and nodes are not.
type place struct {
	name string
	ip   netip.Addr
	what string
}

// TestEndpointsPodsAreKeptFrom has Services whose endpoints are the node itself, an
// interface of it that no object names, one that comes later, metadata services of
// clouds, and Envoy. Rules keep all pods from them. In host mode such Services are left to
// kube-proxy, and so to the rules; in pod mode Envoy calls from the pod's own
// address, and the rules see it as the pod.
func TestEndpointsPodsAreKeptFrom(t *testing.T) {
	each(t, []variant{hostBridged(), hostRouted(), podBridged()}, func(t *testing.T, w *fixture) {
		places := w.makePlaces(t)
		if w.variant.Mode != lab.Pods {
			places = append(places, place{"listener", netip.MustParseAddr("fd6e:6f64:6576:6f79::15"), "an address of Envoy's listeners"})
		}
		w.keepPodsFrom(t, places)
		for i, p := range places {
			w.pointAt(t, p, i)
		}
		check(t, w.Publish(limit(t)))
		w.start(t)
		// The interface that comes while the agent runs.
		late := place{"late", netip.MustParseAddr("192.0.2.78"), "an address of this node"}
		must(w.node.Run(limit(t), "ip", "address", "add", late.ip.String()+"/32", "dev", "lo"))(t)
		w.keepPodsFrom(t, []place{late})
		w.pointAt(t, late, len(places))
		check(t, w.Publish(limit(t)))
		for i, p := range append(places, late) {
			target := frontendOf(p, i)
			if w.variant.Mode == lab.Pods {
				w.untilStatus(t, target, "appProtocol http")
			} else {
				w.untilStatus(t, target, "backend "+p.ip.String()+" is "+p.what+", which Envoy must not call in host mode")
			}
			r := call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: target, Requests: 2, Fresh: true, Timeout: 500 * time.Millisecond})
			// nodevoy's own rules, which are first, let pass what anybody's rules have
			// sent to Envoy's address: of that only Envoy's part is checked.
			if w.variant.Mode != lab.Pods && r.Relayed > 0 || p.name != "listener" && r.Failed < r.Requests {
				t.Errorf("%s: %d of 2 calls were answered, %d by Envoy, as %v", p.name, r.Requests-r.Failed, r.Relayed, r.Peers)
			}
		}
		w.callBehind(t, places[0])
		// A neighbour's Service goes on as before.
		r := call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: web4 + ":80", Requests: 3, Fresh: true, Timeout: 2 * time.Second})
		w.allThroughEnvoy(t, r)
		if r.Failed > 0 {
			t.Errorf("a Service with ordinary backends: %v", r.Errors)
		}
	})
}

// TestNodeAsEndpointWithoutRules: a Service whose backend is on the node's network
// works in both modes, as with kube-proxy alone; in pod mode by Envoy.
func TestNodeAsEndpointWithoutRules(t *testing.T) {
	each(t, modes(), func(t *testing.T, w *fixture) {
		p := w.makePlaces(t)[0]
		w.pointAt(t, p, 0)
		check(t, w.Publish(limit(t)))
		w.start(t)
		w.untilStatus(t, frontendOf(p, 0), map[lab.Mode]string{lab.Pods: "appProtocol http", lab.Host: p.what}[w.variant.Mode])
		r := call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: frontendOf(p, 0), Requests: 3, Fresh: true, Timeout: 2 * time.Second})
		if want := map[lab.Mode]int{lab.Pods: 3}[w.variant.Mode]; r.Failed > 0 || r.Relayed != want || r.Peers[w.client.IPs[0].String()] != 3 {
			t.Errorf("%d of 3 calls failed, %d by Envoy, want %d, seen to come from %v: %v", r.Failed, r.Relayed, want, r.Peers, r.Errors)
		}
	})
}

// callBehind has a Service whose endpoint is the first Service of pointAt, which
// kube-proxy would lead the node's connections through.
func (w *fixture) callBehind(t *testing.T, p place) {
	t.Helper()
	inner := netip.MustParseAddrPort(frontendOf(p, 0))
	outer := place{"behind", inner.Addr(), "an address of a Service"}
	w.pointAt(t, outer, 99)
	service := lab.EchoPorts()[:1]
	service[0].TargetPort.IntVal = int32(inner.Port())
	w.Objects().Set(&discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: "behind-by-hand", Labels: map[string]string{discoveryv1.LabelServiceName: "behind"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{inner.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &service[0].Name, Port: &service[0].TargetPort.IntVal, Protocol: &service[0].Protocol}},
	})
	check(t, w.Publish(limit(t)))
	target := frontendOf(outer, 99)
	if w.variant.Mode == lab.Pods {
		w.untilStatus(t, target, "appProtocol http")
	} else {
		w.untilStatus(t, target, "backend "+inner.String()+" is an address of a Service")
	}
	r := call(t, w.client, echo.Spec{Protocol: echo.HTTP1, Target: target, Requests: 2, Fresh: true, Timeout: 500 * time.Millisecond})
	if r.Failed < 2 {
		t.Errorf("through two Services: %d of 2 calls were answered, as %v", r.Requests-r.Failed, r.Peers)
	}
}

// makePlaces has servers on both nodes at addresses that pods are to be kept from.
func (w *fixture) makePlaces(t *testing.T) []place {
	t.Helper()
	far := w.web[1].Node
	at := func(name, ip, what string) place { return place{name, netip.MustParseAddr(ip), what} }
	metadata := []place{
		at("aws", "fd00:ec2::254", "a metadata address of AWS"),
		at("azure", "168.63.129.16", "a metadata address of Azure"),
		at("google", "fd20:ce::254", "a metadata address of Google Cloud"),
		at("alibaba", "100.100.100.200", "a metadata address of Alibaba Cloud"),
	}
	for _, p := range metadata {
		must(far.Run(limit(t), "ip", "address", "add", p.ip.String(), "dev", "lo"))(t)
		gateway := far.IPs[0]
		if p.ip.Is6() {
			gateway = far.IPs[1]
		}
		must(w.node.Run(limit(t), "ip", "route", "add", p.ip.String(), "via", gateway.String()))(t)
	}
	must(w.node.Run(limit(t), "ip", "address", "add", "192.0.2.77/32", "dev", "lo"))(t)
	for _, node := range []*lab.Node{w.node, far} {
		server := must(node.Start("secret.log", "/proc/self/exe", echo.Command, "serve", "node/secret", node.Name))(t)
		check(t, waitFor(t, 10*time.Second, func() error {
			if !strings.Contains(server.Output(), "is listening") {
				return fmt.Errorf("not listening: %s", server.Output())
			}
			return nil
		}))
	}
	node := []place{
		{"node4", w.node.IPs[0], "an address of this node"},
		{"node6", w.node.IPs[1], "an address of this node"},
		at("interface", "192.0.2.77", "an address of this node"),
	}
	return append(node, metadata...)
}

// keepPodsFrom has the node drop the connections of pods to the places.
func (w *fixture) keepPodsFrom(t *testing.T, places []place) {
	t.Helper()
	pods := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")}
	for _, p := range places {
		iptables, from := "iptables", pods[0]
		if p.ip.Is6() {
			iptables, from = "ip6tables", pods[1]
		}
		for _, chain := range []string{"INPUT", "FORWARD"} {
			must(w.node.Run(limit(t), iptables, "-w", "-I", chain, "-s", from.String(), "-d", p.ip.String(), "-p", "tcp", "--syn", "-j", "DROP"))(t)
		}
	}
}

// pointAt makes a Service, the i-th of its kind, whose only endpoint is the place.
func (w *fixture) pointAt(t *testing.T, p place, i int) {
	t.Helper()
	service := lab.Service{Namespace: "shop", Name: p.name, IPs: []netip.Addr{netip.MustParseAddrPort(frontendOf(p, i)).Addr()}, Ports: lab.EchoPorts()}
	w.Objects().SetService(service)
	family := discoveryv1.AddressTypeIPv4
	if p.ip.Is6() {
		family = discoveryv1.AddressTypeIPv6
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: p.name + "-by-hand", Labels: map[string]string{discoveryv1.LabelServiceName: p.name}},
		AddressType: family,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{p.ip.String()}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}},
	}
	for _, port := range service.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &port.Name, Port: &port.TargetPort.IntVal, Protocol: &port.Protocol})
	}
	w.Objects().Set(slice)
}

// frontendOf is where pods call the i-th Service of pointAt.
func frontendOf(p place, i int) string {
	ip := netip.AddrFrom4([4]byte{10, 96, 66, byte(i + 1)})
	if p.ip.Is6() {
		ip = netip.MustParseAddr(fmt.Sprintf("fd00:10:96::66:%x", i+1))
	}
	return netip.AddrPortFrom(ip, 80).String()
}

// deny has a pod drop what another sends to it.
func deny(t *testing.T, pod, from *lab.Pod) {
	t.Helper()
	for i, iptables := range []string{"iptables", "ip6tables"} {
		must(pod.Run(limit(t), iptables, "-w", "-A", "INPUT", "-s", from.IPs[i].String(), "-j", "DROP"))(t)
	}
}

// untilStatus waits until the line of `nodevoy status --all` that has the first of
// these words has the others too. The test goes on without: what the line denies is
// tried all the same.
func (w *fixture) untilStatus(t *testing.T, of string, words ...string) {
	t.Helper()
	err := waitFor(t, 10*time.Second, func() error {
		text, err := w.node.StatusText(limit(t), "--all")
		if err != nil {
			return err
		}
		var found []string
		for line := range strings.Lines(text) {
			if !strings.Contains(line, of) {
				continue
			}
			if containsAll(line, words...) {
				return nil
			}
			found = append(found, line)
		}
		return fmt.Errorf("status says %q, want %q", found, words)
	})
	if err != nil {
		t.Error(err)
	}
}
