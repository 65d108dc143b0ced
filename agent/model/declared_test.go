// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// TestDeclaredListenerPort: a pod that declares a port on which Envoy would listen in it
// is not enrolled, and its owner is told, unless nobody asked to enroll it.
func TestDeclaredListenerPort(t *testing.T) {
	opts := model.DefaultOptions()
	opts.ListenerPorts = []uint16{23721, 23722}
	udp := corev1.ContainerPort{ContainerPort: 23721, Protocol: corev1.ProtocolUDP}
	taken := corev1.ContainerPort{ContainerPort: 23722, Protocol: corev1.ProtocolTCP}
	const reason = "declares port 23722, which Envoy needs in enrolled pods"
	for what, test := range map[string]struct {
		label     string
		init, own []corev1.ContainerPort
		none      bool
		enrolled  bool
		reason    string
	}{
		"others":                 {label: "enabled", own: []corev1.ContainerPort{{ContainerPort: 80}, udp}, enrolled: true, reason: "namespace label nodevoy.io/redirect=enabled"},
		"one":                    {label: "enabled", own: []corev1.ContainerPort{{ContainerPort: 80}, taken}, reason: reason},
		"of an init container":   {label: "enabled", init: []corev1.ContainerPort{{ContainerPort: 23722}}, reason: reason},
		"of a pod left alone":    {own: []corev1.ContainerPort{taken}, reason: "namespace is not labelled nodevoy.io/redirect=enabled"},
		"where Envoy needs none": {label: "enabled", own: []corev1.ContainerPort{taken}, none: true, enrolled: true, reason: "namespace label nodevoy.io/redirect=enabled"},
	} {
		o := opts
		if test.none {
			o.ListenerPorts = nil
		}
		node := model.Build(model.Inputs{
			NodeName:   nodeName,
			Namespaces: []*corev1.Namespace{namespace("shop", test.label)},
			Pods: []*corev1.Pod{with(pod("p", "10.1.0.1"), func(p *corev1.Pod) {
				p.Spec.InitContainers = []corev1.Container{{Name: "i", Ports: test.init}}
				p.Spec.Containers = []corev1.Container{{Name: "a"}, {Name: "b", Ports: test.own}}
			})},
		}, o)
		if got := node.Pods[0]; got.Enrolled != test.enrolled || got.Reason != test.reason {
			t.Errorf("%s: %v, %q; want %v, %q", what, got.Enrolled, got.Reason, test.enrolled, test.reason)
		}
		var want []string
		if test.reason == reason {
			want = []string{"Pod shop/p spec.containers.ports: 23722 is a port that Envoy needs in enrolled pods; not redirected"}
		}
		if diff := cmp.Diff(want, texts(node.Problems), noEmpty...); diff != "" {
			t.Errorf("%s: problems (-want +got):\n%s", what, diff)
		}
	}
}
