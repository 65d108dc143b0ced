// SPDX-License-Identifier: Apache-2.0

package kinds

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodevoy/nodevoy/agent/model"
)

func podOn(node, name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: corev1.PodSpec{NodeName: node}}
}

// TestSet puts, replaces and deletes pods, and sees what the inputs have after
// each step, and that those of the steps before do not change.
func TestSet(t *testing.T) {
	s := kindOf(t, &corev1.Pod{}).NewSet("node-1")
	a, b, c, a2 := podOn("node-1", "a"), podOn("node-1", "b"), podOn("node-1", "c"), podOn("node-1", "a")
	var inputs []model.Inputs
	for _, step := range []struct {
		name   string
		change func()
		want   []*corev1.Pod
	}{
		{"empty", func() {}, nil},
		{"three", func() { s.Put(a); s.Put(b); s.Put(c) }, []*corev1.Pod{a, b, c}},
		{"replaced", func() { s.Put(a2) }, []*corev1.Pod{a2, b, c}},
		{"the same again", func() { s.Put(b) }, []*corev1.Pod{a2, b, c}},
		{"of another node", func() { s.Put(podOn("node-2", "d")) }, []*corev1.Pod{a2, b, c}},
		{"deleted", func() { s.Delete(NameOf(a)) }, []*corev1.Pod{b, c}},
		{"deleted again", func() { s.Delete(NameOf(a)) }, []*corev1.Pod{b, c}},
		{"moved to another node", func() { s.Put(podOn("node-2", "b")) }, []*corev1.Pod{c}},
		{"back", func() { s.Put(a); s.Delete(NameOf(c)); s.Put(b) }, []*corev1.Pod{a, b}},
	} {
		step.change()
		var in model.Inputs
		s.AddTo(&in)
		inputs = append(inputs, in)
		got := slices.SortedFunc(slices.Values(in.Pods), func(x, y *corev1.Pod) int {
			return slices.Index(step.want, x) - slices.Index(step.want, y)
		})
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: got %v, want the very objects %v", step.name, got, step.want)
		}
	}
	if got := inputs[1].Pods; !slices.Equal(got, []*corev1.Pod{a, b, c}) {
		t.Errorf("inputs that were handed out have become %v", got)
	}
	if s.Get(NameOf(c)) != nil || s.Get(NameOf(a)) != Object(a) {
		t.Errorf("got %v and %v by name", s.Get(NameOf(c)), s.Get(NameOf(a)))
	}
	want := []types.NamespacedName{{Namespace: "shop", Name: "a"}, {Namespace: "shop", Name: "b"}}
	if diff := cmp.Diff(want, s.Names()); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}
