// SPDX-License-Identifier: Apache-2.0

package advise_test

import (
	"fmt"
	"iter"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/advise"
	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/model"
)

var now = time.Unix(1_800_000_000, 0)

// node has the pods shop/a, shop/b and shop/c, and the Service shop/web with three
// backends at the ports http, named so, and raw, of which nothing is known; and
// shop/sticky, which is bypassed.
func node() *model.Node {
	tcp := corev1.ProtocolTCP
	in := model.Inputs{NodeName: "node-a", Namespaces: []*corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}}}
	for i, name := range []string{"a", "b", "c", "host"} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
		p.Spec.NodeName, p.Status.PodIP, p.Spec.HostNetwork = "node-a", fmt.Sprintf("10.244.1.%d", i+1), name == "host"
		in.Pods = append(in.Pods, p)
	}
	for i, name := range []string{"web", "sticky"} {
		meta := metav1.ObjectMeta{Namespace: "shop", Name: name}
		spec := corev1.ServiceSpec{
			ClusterIP: fmt.Sprintf("10.96.0.%d", i+1),
			Ports:     []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "raw", Port: 7777}},
		}
		if name == "sticky" {
			spec.SessionAffinity = corev1.ServiceAffinityClientIP
		}
		in.Services = append(in.Services, &corev1.Service{ObjectMeta: meta, Spec: spec})
		slice := &discoveryv1.EndpointSlice{ObjectMeta: meta, AddressType: discoveryv1.AddressTypeIPv4}
		slice.Labels = map[string]string{discoveryv1.LabelServiceName: name}
		for _, port := range spec.Ports {
			slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &port.Name, Port: &port.Port, Protocol: &tcp})
		}
		for j := range 3 {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{fmt.Sprintf("10.244.2.%d", j+1)}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprintf("web-%d", j+1)},
			})
		}
		in.EndpointSlices = append(in.EndpointSlices, slice)
	}
	return model.Build(in, model.DefaultOptions())
}

// call is a connection of the pod with this number to a backend, since an age ago; not
// known since when if that is negative.
func call(n *model.Node, from int, to string, backend int, age time.Duration) flow.Flow {
	at := netip.MustParseAddrPort(to)
	f := flow.Flow{
		Origin: flow.OriginKernel, Open: true, Protocol: "TCP", Frontend: at,
		Source:  flow.Peer{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, 1, byte(from)}), uint16(30000+backend))},
		Backend: flow.Peer{Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 244, 2, byte(backend)}), at.Port())},
	}
	if age >= 0 {
		f.Time = now.Add(-age)
	}
	flow.NewNamer(n).Name(&f)
	return f
}

// each gives the flows one by one.
func each(flows ...flow.Flow) iter.Seq[*flow.Flow] {
	return func(yield func(*flow.Flow) bool) {
		for i := range flows {
			if !yield(&flows[i]) {
				return
			}
		}
	}
}

const (
	web, raw, sticky = "10.96.0.1:80", "10.96.0.1:7777", "10.96.0.2:80"
	old              = 10 * time.Minute
)

// stuck says in short who is.
func stuck(a advise.Advice) []string {
	out := []string{}
	for _, s := range a.Stuck {
		since := "?"
		if s.Since != nil {
			since = now.Sub(*s.Since).String()
		}
		out = append(out, fmt.Sprintf("%s to %s on %s: %d of %d since %s", s.Caller.Name(), s.Service, s.Backend.Name(), s.Connections, s.Backends, since))
	}
	return out
}

func TestStuck(t *testing.T) {
	n := node()
	for _, c := range []struct {
		name string
		open []flow.Flow
		want []string
	}{
		{"nothing", nil, []string{}},
		{
			"one of three",
			[]flow.Flow{
				call(n, 1, web, 2, old), call(n, 1, web, 2, time.Hour), // All on one.
				call(n, 2, web, 1, old), call(n, 2, web, 3, old), // On two.
				call(n, 3, web, 1, time.Second), // Young.
			},
			[]string{"shop/a to shop/web/http on shop/web-2: 2 of 3 since 1h0m0s"},
		},
		{"an old one, and a young one elsewhere", []flow.Flow{call(n, 1, web, 2, old), call(n, 1, web, 3, 0)}, []string{}},
		{"since when is not known", []flow.Flow{call(n, 1, web, 2, old), call(n, 1, web, 2, -1)}, []string{"shop/a to shop/web/http on shop/web-2: 2 of 3 since ?"}},
		{"bypassed", []flow.Flow{call(n, 1, sticky, 2, old)}, []string{}},
		{"straight to a pod", []flow.Flow{call(n, 1, "10.244.2.1:80", 1, old)}, []string{}},
		{
			"two ports",
			[]flow.Flow{call(n, 1, web, 2, old), call(n, 1, raw, 3, old)},
			[]string{"shop/a to shop/web/http on shop/web-2: 1 of 3 since 10m0s", "shop/a to shop/web/raw on shop/web-3: 1 of 3 since 10m0s"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := advise.Advise(advise.Input{Node: n, Now: now, Open: each(c.open...), Long: advise.Long})
			if diff := cmp.Diff(c.want, stuck(a)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestWould says what enrolling changes for requests, and that it does nothing for bytes.
func TestWould(t *testing.T) {
	n := node()
	a := advise.Advise(advise.Input{Node: n, Now: now, Long: advise.Long, Open: each(call(n, 1, web, 2, old), call(n, 1, raw, 3, old))})
	if len(a.Stuck) != 2 || !strings.HasPrefix(a.Stuck[0].Would, "each request would go to one of the 3 backends") ||
		!strings.HasPrefix(a.Stuck[1].Would, "nothing: of plain TCP") {
		t.Errorf("got %+v", a.Stuck)
	}
}

// TestServices sums up who got the connections, of those open and of those that began.
func TestServices(t *testing.T) {
	n := node()
	merged := call(n, 2, web, 1, time.Minute)
	merged.Connections = 7
	end, envoy := call(n, 2, web, 1, time.Minute), call(n, 2, web, 1, time.Minute)
	end.Open, envoy.Origin = false, flow.OriginEnvoy
	a := advise.Advise(advise.Input{
		Node: n, Now: now, Long: advise.Long,
		Open:  each(call(n, 1, web, 2, old), call(n, 1, web, 2, old), call(n, 1, sticky, 1, 0)),
		Flows: []flow.Flow{merged, call(n, 1, web, 1, time.Minute), end, envoy},
	})
	var got []string
	for _, s := range a.Services {
		got = append(got, fmt.Sprintf("%s %s, bypass %q, %d callers, %d connections", s.Service, s.Class, s.Bypass, s.Callers, s.Connections))
		for _, b := range s.Backends {
			got = append(got, fmt.Sprintf("  %s open %d begun %d: %.2f of %.2f", b.Name(), b.Open, b.Begun, b.Share, b.Fair))
		}
	}
	if diff := cmp.Diff([]string{
		`shop/sticky/http detect, bypass "sessionAffinity ClientIP", 1 callers, 1 connections`,
		"  10.244.2.1:80 open 1 begun 0: 1.00 of 1.00",
		`shop/web/http detect, bypass "", 2 callers, 10 connections`,
		"  shop/web-1 open 0 begun 8: 0.80 of 0.33",
		"  shop/web-2 open 2 begun 0: 0.20 of 0.33",
		"  shop/web-3 open 0 begun 0: 0.00 of 0.33",
	}, got); diff != "" {
		t.Error(diff)
	}
	if a.Connections != 3 {
		t.Errorf("%d connections were looked at", a.Connections)
	}
}

func TestNamespaces(t *testing.T) {
	want := []advise.Namespace{{
		Namespace: "shop", Enrolled: []string{}, Would: []string{"a", "b", "c"},
		Others: []advise.Pod{{Pod: "host", Why: "uses the node's network (hostNetwork)"}},
	}}
	if diff := cmp.Diff(want, advise.Advise(advise.Input{Node: node(), Now: now, Open: each()}).Namespaces); diff != "" {
		t.Error(diff)
	}
}
