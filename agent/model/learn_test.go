// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// TestLearning: what Envoy has seen decides where nothing declared does, and the node that
// was built stays as it is.
func TestLearning(t *testing.T) {
	appProtocol := "http"
	for _, test := range []struct {
		port corev1.ServicePort
		seen model.Seen
		want model.Class
		why  string
	}{
		{corev1.ServicePort{Name: "http", Port: 80}, model.Seen{HTTP: true}, model.ClassHTTP, "port name http, and HTTP was seen"},
		{corev1.ServicePort{Name: "grpc-api", Port: 80}, model.Seen{HTTP: true, Other: true}, model.ClassHTTP, "port name grpc-api, and HTTP was seen"},
		{corev1.ServicePort{Name: "http", Port: 9200}, model.Seen{TLS: true}, model.ClassTCP, "port name http, but TLS was seen"},
		{corev1.ServicePort{Name: "http", Port: 9200}, model.Seen{TLS: true, Other: true}, model.ClassTCP, "port name http, but TLS was seen"},
		{corev1.ServicePort{Name: "http", Port: 80}, model.Seen{TLS: true, HTTP: true}, model.ClassDetect, "port name http, HTTP not seen yet"},
		{corev1.ServicePort{Name: "http", Port: 80}, model.Seen{Other: true}, model.ClassDetect, "port name http, HTTP not seen yet"},
		{corev1.ServicePort{Name: "web", Port: 80}, model.Seen{Other: true}, model.ClassTCP, "no declared protocol, and what was seen is not HTTP; appProtocol declares it"},
		{corev1.ServicePort{Name: "web", Port: 80}, model.Seen{TLS: true}, model.ClassTCP, "no declared protocol, and what was seen is not HTTP; appProtocol declares it"},
		{corev1.ServicePort{Name: "web", Port: 80}, model.Seen{HTTP: true}, model.ClassDetect, ""},
		{corev1.ServicePort{Name: "web", Port: 80}, model.Seen{HTTP: true, Other: true, TLS: true}, model.ClassDetect, ""},
		{corev1.ServicePort{Name: "web", Port: 80}, model.Seen{}, model.ClassDetect, ""},
		{corev1.ServicePort{Name: "http", Port: 80, AppProtocol: &appProtocol}, model.Seen{TLS: true, Other: true}, model.ClassHTTP, "appProtocol http"},
		{corev1.ServicePort{Name: "tcp", Port: 80}, model.Seen{HTTP: true}, model.ClassTCP, "port name tcp"},
	} {
		node := build(model.Inputs{Services: []*corev1.Service{service(func(s *corev1.Service) { s.Spec.Ports = []corev1.ServicePort{test.port} })}})
		built := *node.Frontends[0]
		nobodys := netip.MustParseAddrPort("192.0.2.1:80")
		learned := node.Learning(map[netip.AddrPort]model.Seen{built.Address: test.seen, nobodys: {Other: true}})
		f, ok := learned.Frontend(built.Address)
		if !ok || f.Class != test.want || !strings.HasPrefix(f.ClassReason, test.why) {
			t.Errorf("port %s, seen %+v: %s (%s), want %s (%s)", test.port.Name, test.seen, f.Class, f.ClassReason, test.want, test.why)
		}
		if node.Frontends[0].Class != built.Class || node.Frontends[0].ClassReason != built.ClassReason {
			t.Errorf("port %s: the node that was built has changed: %+v", test.port.Name, node.Frontends[0])
		}
		if (learned == node) != (f.Class == built.Class) {
			t.Errorf("port %s: a copy of the node: %v, class %s before and %s now", test.port.Name, learned != node, built.Class, f.Class)
		}
	}
}
