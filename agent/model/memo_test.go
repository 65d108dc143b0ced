// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// FuzzBuilder builds from one choice of objects after another: objects come, go,
// come back and are replaced by others of the same name. Each Node must be the
// one that is built from nothing.
func FuzzBuilder(f *testing.F) {
	f.Add([]byte{})
	for seed := range byte(8) {
		data := make([]byte, 1000)
		for i := range data {
			data[i] = byte(i*37) ^ byte(i>>3)*(seed*2+1)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		source := &bytesToObjects{data[len(data)/4:]}
		choices := &bytesToObjects{data[:len(data)/4]}
		pools := []model.Inputs{source.inputs(), source.inputs(), source.inputs()}
		opts := pick(choices, model.DefaultOptions(), hostOptions())
		builder := model.NewBuilder(opts)
		for step := range 4 + len(choices.data)/16 {
			in := choices.choose(pools)
			in.NodeNetworks = pick(choices, nil, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/30")})
			want, got := model.Build(in, opts), builder.Build(in)
			if err := consistent(got); err != nil {
				t.Fatalf("step %d: inconsistent node: %v", step, err)
			}
			// cmp is too slow to say so each time.
			if !reflect.DeepEqual(want, got) {
				t.Fatalf("step %d: the builder's node differs:\n%s", step,
					cmp.Diff(want, got, append(noEmpty, cmpopts.IgnoreUnexported(model.Node{}))...))
			}
		}
	})
}

// choose makes inputs of some of the objects of the pools, in any order.
func (b *bytesToObjects) choose(pools []model.Inputs) model.Inputs {
	in := model.Inputs{NodeName: pick(b, nodeName, nodeName, nodeName, "node-2")}
	in.Node = pick(b, pools...).Node
	order := rand.New(rand.NewPCG(uint64(b.n(4)), 0))
	for _, pool := range pools {
		in.Namespaces = append(in.Namespaces, some(b, order, pool.Namespaces)...)
		in.Pods = append(in.Pods, some(b, order, pool.Pods)...)
		in.Services = append(in.Services, some(b, order, pool.Services)...)
		in.EndpointSlices = append(in.EndpointSlices, some(b, order, pool.EndpointSlices)...)
	}
	in.Namespaces = unique(in.Namespaces)
	in.Services = unique(in.Services)
	in.Pods = unique(in.Pods)
	in.EndpointSlices = unique(in.EndpointSlices)
	return in
}

// some of the objects, shuffled.
func some[T any](b *bytesToObjects, order *rand.Rand, from []T) []T {
	var chosen []T
	mask := b.n(256)
	for i, object := range from {
		if mask>>(i%8)&1 == 0 {
			chosen = append(chosen, object)
		}
	}
	order.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	return chosen
}

// unique keeps one object of each name, as any cache does.
func unique[T metav1.Object](objects []T) []T {
	seen := map[[2]string]bool{}
	return slices.DeleteFunc(objects, func(o T) bool {
		key := [2]string{o.GetNamespace(), o.GetName()}
		defer func() { seen[key] = true }()
		return seen[key]
	})
}

// TestBuilderTakesOver: what is made of the same objects is the same frontend,
// and nothing else is computed again.
func TestBuilderTakesOver(t *testing.T) {
	in := cluster(1000)
	builder := model.NewBuilder(model.DefaultOptions())
	before := builder.Build(in)
	changed := 500
	in.EndpointSlices[changed] = in.EndpointSlices[changed].DeepCopy()
	in.EndpointSlices[changed].Endpoints = in.EndpointSlices[changed].Endpoints[:9]
	after := builder.Build(in)
	for i := range after.Frontends {
		if taken := after.Frontends[i] == before.Frontends[i]; taken == (i == changed) {
			t.Errorf("frontend %s of %s: taken over %v", after.Frontends[i].Address, after.Frontends[i].Port, taken)
		}
	}
	if have := len(after.Frontends[changed].Backends); have != 9 {
		t.Errorf("%d backends, want 9", have)
	}
}

// TestBuilderWork bounds what a round costs in which one EndpointSlice changed.
func TestBuilderWork(t *testing.T) {
	in := cluster(1000)
	builder := model.NewBuilder(model.DefaultOptions())
	builder.Build(in)
	slice := in.EndpointSlices[500]
	allocs := testing.AllocsPerRun(20, func() {
		in.EndpointSlices[500] = slice.DeepCopy()
		builder.Build(in)
	})
	own := testing.AllocsPerRun(20, func() { slice.DeepCopy() })
	if allocs -= own; allocs > 200 {
		t.Errorf("%.0f allocations for one changed slice of 1000", allocs)
	}
}

// TestBuilderFollows changes, one after another, everything that a Node is built
// from.
func TestBuilderFollows(t *testing.T) {
	all := cluster(3)
	all.Services[0].Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	for i := range all.EndpointSlices[1].Endpoints {
		zone := discoveryv1.ForZone{Name: *all.EndpointSlices[1].Endpoints[i].Zone}
		all.EndpointSlices[1].Endpoints[i].Hints = &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{zone}}
	}
	inZone := func(zone string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelTopologyZone: zone}}}
	}
	in := all
	steps := []struct {
		name   string
		change func()
	}{
		{"all", func() {}},
		{"nothing changed", func() {}},
		{"a Service goes", func() { in.Services = all.Services[:2] }},
		{"all Services go", func() { in.Services = nil }},
		{"their slices go", func() { in.EndpointSlices = nil }},
		{"the slices come back", func() { in.EndpointSlices = all.EndpointSlices }},
		{"the Services come back", func() { in.Services = all.Services }},
		{"a slice goes", func() { in.EndpointSlices = all.EndpointSlices[:2] }},
		{"it comes back", func() { in.EndpointSlices = all.EndpointSlices }},
		{"the zone is known", func() { in.Node = inZone("zone-0") }},
		{"the zone is another", func() { in.Node = inZone("zone-1") }},
		{"the node is another", func() { in.NodeName = "node-2" }},
		{"the first node again", func() { in.NodeName = "node-1" }},
		{"the namespace opts out", func() { in.Namespaces = []*corev1.Namespace{namespace("shop", model.RedirectDisabled)} }},
		{"the namespace goes", func() { in.Namespaces = nil }},
		{"the node takes a pod's IP", func() {
			in.Node = inZone("zone-1")
			in.Node.Status.Addresses = []corev1.NodeAddress{{Address: "10.1.0.1"}}
			in.Namespaces = all.Namespaces
		}},
		{"a pod goes", func() { in.Pods = all.Pods[1:] }},
	}
	builder := model.NewBuilder(model.DefaultOptions())
	for _, step := range steps {
		step.change()
		if diff := cmp.Diff(model.Build(in, model.DefaultOptions()), builder.Build(in),
			append(noEmpty, cmpopts.IgnoreUnexported(model.Node{}))...); diff != "" {
			t.Errorf("%s:\n%s", step.name, diff)
		}
	}
}
