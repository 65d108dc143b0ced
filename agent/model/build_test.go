// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

const nodeName = "node-1"

// build builds with the default options.
func build(in model.Inputs) *model.Node {
	in.NodeName = nodeName
	return model.Build(in, model.DefaultOptions())
}

var noEmpty = []cmp.Option{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})}

func labels(redirect string) map[string]string {
	return map[string]string{model.RedirectLabel: redirect}
}

func namespace(name, redirect string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if redirect != "" {
		ns.Labels = labels(redirect)
	}
	return ns
}

// created is a time on a scale of minutes.
func created(minute int) metav1.Time {
	return metav1.NewTime(time.Date(2026, time.March, 1, 12, minute, 0, 0, time.UTC))
}

// pod is a running pod of the namespace shop on this node.
func pod(name string, ips ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       corev1.PodSpec{NodeName: nodeName},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	return p
}

// with is the object after the change.
func with[T any](object *T, changes ...func(*T)) *T {
	for _, change := range changes {
		change(object)
	}
	return object
}

// service is shop/web, port http 80 at 10.96.0.1.
func service(changes ...func(*corev1.Service)) *corev1.Service {
	return with(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.1",
			Ports:     []corev1.ServicePort{{Name: "http", Port: 80}},
		},
	}, changes...)
}

// slice is an EndpointSlice of shop/web, port http 8080.
func slice(name string, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: "web"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
		Endpoints:   endpoints,
	}
}

// endpoint is a ready endpoint, unless changed.
func endpoint(ip string, changes ...func(*discoveryv1.Endpoint)) discoveryv1.Endpoint {
	return *with(&discoveryv1.Endpoint{Addresses: []string{ip}}, changes...)
}

func unready(e *discoveryv1.Endpoint) {
	e.Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(false)}
}

// leaving is serving and terminating.
func leaving(e *discoveryv1.Endpoint) {
	e.Conditions = discoveryv1.EndpointConditions{Ready: new(false), Serving: new(true), Terminating: new(true)}
}

func on(node string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) { e.NodeName = &node }
}

func forZones(zones ...string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		if e.Hints == nil {
			e.Hints = &discoveryv1.EndpointHints{}
		}
		for _, zone := range zones {
			e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: zone})
		}
	}
}

func forNodes(nodes ...string) func(*discoveryv1.Endpoint) {
	return func(e *discoveryv1.Endpoint) {
		if e.Hints == nil {
			e.Hints = &discoveryv1.EndpointHints{}
		}
		for _, node := range nodes {
			e.Hints.ForNodes = append(e.Hints.ForNodes, discoveryv1.ForNode{Name: node})
		}
	}
}

// addresses are the addresses of a frontend's backends.
func addresses(t *testing.T, node *model.Node, frontend string) []string {
	t.Helper()
	f, ok := node.Frontend(netip.MustParseAddrPort(frontend))
	if !ok {
		t.Fatalf("no frontend %s", frontend)
	}
	var list []string
	for _, backend := range f.Backends {
		text := backend.Address.String()
		if backend.Terminating {
			text += " terminating"
		}
		list = append(list, text)
	}
	if used := used(node, f); !slices.Equal(used, list) {
		t.Errorf("of the candidates %q are said to be used, want %q", used, list)
	}
	return list
}

// used are the candidates of a frontend that are said to be used.
func used(node *model.Node, f *model.Frontend) []string {
	var list []string
	for _, c := range node.Candidates(f) {
		if text := c.Address.String(); c.Used {
			if !c.Ready {
				text += " terminating"
			}
			list = append(list, text)
		}
	}
	return list
}

func TestBuildOfNothing(t *testing.T) {
	got := model.Build(model.Inputs{}, model.Options{})
	if diff := cmp.Diff(&model.Node{}, got, append(noEmpty, cmpopts.IgnoreUnexported(model.Node{}))...); diff != "" {
		t.Errorf("node (-want +got):\n%s", diff)
	}
	if f, ok := got.Frontend(netip.MustParseAddrPort("10.96.0.1:80")); ok {
		t.Errorf("found frontend %v, want none", f)
	}
}

func TestNodeLocality(t *testing.T) {
	in := model.Inputs{Node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{
		"topology.kubernetes.io/region": "eu", "topology.kubernetes.io/zone": "eu-1",
	}}}}
	node := build(in)
	got := [3]string{node.Name, node.Region, node.Zone}
	if want := [3]string{nodeName, "eu", "eu-1"}; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestBuildIgnoresOrder builds the same cluster from lists in many orders.
func TestBuildIgnoresOrder(t *testing.T) {
	in := cluster(60)
	in.NodeName = nodeName
	// Every kind of conflict, whose winner must not depend on the order.
	in.Services = append(in.Services,
		service(func(s *corev1.Service) { s.Name, s.Spec.ExternalIPs = "a", []string{"10.96.0.5", "192.0.2.1"} }),
		service(func(s *corev1.Service) { s.Name, s.Spec.ExternalIPs = "b", []string{"10.96.0.5", "192.0.2.1"} }))
	in.EndpointSlices = append(in.EndpointSlices,
		slice("x", endpoint("10.0.0.1", on("n1")), endpoint("10.0.0.2", leaving)),
		slice("y", endpoint("10.0.0.1", on("n2")), endpoint("10.0.0.2", on("n2")), endpoint("bad")))
	in.Pods = append(in.Pods, pod("x", "10.1.0.1"), pod("y", "10.1.0.1"))
	want := model.Build(in, model.DefaultOptions())

	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		shuffle(random, in.Namespaces)
		shuffle(random, in.Pods)
		shuffle(random, in.Services)
		shuffle(random, in.EndpointSlices)
		got := model.Build(in, model.DefaultOptions())
		if diff := cmp.Diff(want, got, append(noEmpty, cmpopts.IgnoreUnexported(model.Node{}))...); diff != "" {
			t.Fatalf("another order gave another node (-want +got):\n%s", diff)
		}
	}
}

func shuffle[T any](random *rand.Rand, list []T) {
	random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
}

// TestBuildLeavesInputsAlone runs on objects that a cache also holds.
func TestBuildLeavesInputsAlone(t *testing.T) {
	in := cluster(5)
	in.Pods = append(in.Pods, pod("x", "fd00::1", "10.1.0.1"))
	before := model.Inputs{NodeName: in.NodeName, Pods: slices.Clone(in.Pods)}
	var copies []any
	for _, p := range in.Pods {
		copies = append(copies, p.DeepCopy())
	}
	var sliceCopies []any
	for _, s := range in.EndpointSlices {
		sliceCopies = append(sliceCopies, s.DeepCopy())
	}
	build(in)
	if diff := cmp.Diff(before.Pods, in.Pods); diff != "" {
		t.Errorf("list of pods (-before +after):\n%s", diff)
	}
	for i := range copies {
		if diff := cmp.Diff(copies[i], any(in.Pods[i])); diff != "" {
			t.Errorf("pod (-before +after):\n%s", diff)
		}
	}
	for i := range sliceCopies {
		if diff := cmp.Diff(sliceCopies[i], any(in.EndpointSlices[i])); diff != "" {
			t.Errorf("slice (-before +after):\n%s", diff)
		}
	}
}

func TestOptionsValidate(t *testing.T) {
	for _, test := range []struct {
		name string
		opts model.Options
		want string
	}{
		{name: "default", opts: model.DefaultOptions()},
		{name: "empty", opts: model.Options{}},
		{name: "undeclared", opts: model.Options{Undeclared: "http"}, want: `"http" is no setting for undeclared ports: want likely, detect or tcp`},
		{name: "port 0", opts: model.Options{OpaquePorts: []uint16{25, 0}}, want: "opaque ports: 0 is not a port"},
		{
			name: "namespace",
			opts: model.Options{ExcludedNamespaces: []string{"a", "", "b c"}},
			want: "excluded namespaces: \"\" is not a namespace name\nexcluded namespaces: \"b c\" is not a namespace name",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			if err := test.opts.Validate(); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
