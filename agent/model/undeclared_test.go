// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodevoy/nodevoy/agent/model"
)

// TestUndeclared: the class of ports that declare nothing, as an expert would choose
// it: they are those of well-known public manifests.
func TestUndeclared(t *testing.T) {
	named := func(name string, port int32) corev1.ServicePort { return corev1.ServicePort{Name: name, Port: port} }
	to := func(port int32, target intstr.IntOrString) corev1.ServicePort {
		return corev1.ServicePort{Port: port, TargetPort: target}
	}
	for _, test := range []struct {
		port corev1.ServicePort
		want model.Class
		why  string
	}{
		{named("", 80), model.ClassDetect, "port 80"},
		{named("", 8080), model.ClassDetect, "port 8080"},
		{named("", 3000), model.ClassDetect, "port 3000"},
		{named("", 9090), model.ClassDetect, "port 9090"},
		{named("web", 9093), model.ClassDetect, "name web"},
		{named("metrics", 9121), model.ClassDetect, "name metrics"},
		{named("grafana", 3300), model.ClassDetect, "name grafana"},
		{named("peer-metrics", 2381), model.ClassDetect, "name peer-metrics"},
		{named("query", 9090), model.ClassDetect, "port 9090"},
		{to(1234, intstr.FromInt(8080)), model.ClassDetect, "targetPort 8080"},
		{to(1234, intstr.FromString("http")), model.ClassDetect, "targetPort http"},
		{to(8000, intstr.FromString("app")), model.ClassDetect, "port 8000"},

		{named("nfs", 2049), model.ClassTCP, ""},
		{named("rpcbind", 111), model.ClassTCP, ""},
		{named("replication-traffic", 9094), model.ClassTCP, ""},
		{named("client", 2379), model.ClassTCP, ""},
		{named("", 27017), model.ClassTCP, "opaque port 27017"},
		{named("", 2003), model.ClassTCP, ""},
		{named("webhook", 2000), model.ClassTCP, ""},
		{named("", 443), model.ClassTCP, "TLS likely: port 443"},
		{named("metrics", 8443), model.ClassTCP, "TLS likely: port 8443"},
		{named("web", 4433), model.ClassDetect, "name web"},
		{named("api", 6443), model.ClassTCP, "TLS likely: port 6443"},
		{named("metrics-https", 9100), model.ClassTCP, "TLS likely: name metrics-https"},
		{to(80, intstr.FromInt(8443)), model.ClassTCP, "TLS likely: port 8443"},
		{to(80, intstr.FromString("https")), model.ClassTCP, "TLS likely: targetPort https"},
	} {
		for setting, want := range map[model.Undeclared]model.Class{
			model.UndeclaredLikely: test.want, model.UndeclaredDetect: model.ClassDetect, model.UndeclaredTCP: model.ClassTCP,
		} {
			if strings.HasPrefix(test.why, "opaque") {
				want = model.ClassTCP
			}
			opts := model.DefaultOptions()
			opts.Undeclared = setting
			svc := service(func(s *corev1.Service) { s.Spec.Ports = []corev1.ServicePort{test.port} })
			f := model.Build(model.Inputs{Services: []*corev1.Service{svc}}, opts).Frontends[0]
			if f.Class != want || setting == model.UndeclaredLikely && !strings.HasSuffix(f.ClassReason, test.why) {
				t.Errorf("%s: port %+v: %s (%s), want %s (%s)", setting, test.port, f.Class, f.ClassReason, want, test.why)
			}
		}
	}
}
