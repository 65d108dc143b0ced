// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

func TestNamespaceSelector(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "client"},
		Spec:       corev1.PodSpec{NodeName: "node-a"},
		Status:     corev1.PodStatus{PodIP: "10.244.1.5"},
	}
	for _, tt := range []struct {
		selector string
		labels   map[string]string
		want     bool
		reason   string
	}{
		{"", map[string]string{model.RedirectLabel: "enabled"}, true, "namespace label nodevoy.io/redirect=enabled"},
		{"", map[string]string{"team": "shop"}, false, "namespace is not labelled nodevoy.io/redirect=enabled"},
		{"team in (shop,cart),!legacy", map[string]string{"team": "shop"}, true, "namespace label !legacy,team in (cart,shop)"},
		{"team in (shop,cart),!legacy", map[string]string{"team": "shop", "legacy": "1"}, false, "namespace is not labelled !legacy,team in (cart,shop)"},
		{"team=shop", map[string]string{"team": "shop", model.RedirectLabel: "disabled"}, false, "namespace label nodevoy.io/redirect=disabled"},
		{"team=shop", map[string]string{model.RedirectLabel: "enabled"}, false, "namespace is not labelled team=shop"},
	} {
		opts := model.DefaultOptions()
		if tt.selector != "" {
			if err := opts.NamespaceSelector.UnmarshalText([]byte(tt.selector)); err != nil {
				t.Fatal(err)
			}
		}
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: tt.labels}}
		node := model.Build(model.Inputs{NodeName: "node-a", Namespaces: []*corev1.Namespace{ns}, Pods: []*corev1.Pod{pod}}, opts)
		if got := node.Pods[0]; got.Enrolled != tt.want || got.Reason != tt.reason {
			t.Errorf("selector %q, labels %v: enrolled %v because %q, want %v because %q", tt.selector, tt.labels, got.Enrolled, got.Reason, tt.want, tt.reason)
		}
	}
	for _, bad := range []string{"", "=", "team in"} {
		if err := new(model.Selector).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken for a selector", bad)
		}
	}
}
