// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// TestClassAnnotation: a Service says for itself what its ports are, whatever they
// declare; what can't be read is a problem, and counts for nothing.
func TestClassAnnotation(t *testing.T) {
	grpc, ports := "grpc", []corev1.ServicePort{{Name: "calls", Port: 9090}, {Name: "http", Port: 80}, {Name: "db", Port: 2003}}
	ports[0].AppProtocol = &grpc
	const unset = "http detect tcp"
	for value, test := range map[string]struct{ want, problem string }{
		"tcp":                         {"tcp tcp tcp", ""},
		"http":                        {"http http http", ""},
		"detect":                      {"detect detect detect", ""},
		"calls=tcp":                   {"tcp detect tcp", ""},
		"9090=tcp":                    {"tcp detect tcp", ""},
		"calls=tcp, 2003=detect":      {"tcp detect detect", ""},
		"tcp, http=http":              {"tcp http tcp", ""},
		"2003=http,tcp":               {"tcp tcp http", ""},
		"calls=tcp,other=tcp":         {"tcp detect tcp", `"other" is no port of the Service`},
		"likely":                      {unset, `"likely" is no class: want http, tcp or detect; treated as not set`},
		"calls=grpc":                  {unset, `"grpc" is no class`},
		"calls=tcp,calls=http":        {unset, "names a port twice"},
		"tcp,http":                    {unset, "names a port twice"},
		"=tcp":                        {unset, `"" is no port of the Service`},
		"calls=tcp,":                  {unset, `"" is no class`},
		"":                            {unset, `"" is no class`},
		strings.Repeat("9090=tcp", 2): {unset, "is no class"},
	} {
		svc := service(func(s *corev1.Service) {
			s.Annotations = map[string]string{model.ClassAnnotation: value}
			s.Spec.Ports = ports
		})
		node := build(model.Inputs{Services: []*corev1.Service{svc}})
		byPort := map[string]string{}
		for _, f := range node.Frontends {
			byPort[f.Port.PortName] = f.Class.String()
		}
		if got := fmt.Sprintf("%s %s %s", byPort["calls"], byPort["http"], byPort["db"]); got != test.want {
			t.Errorf("%q: classes %s, want %s", value, got, test.want)
		}
		problems := strings.Join(texts(node.Problems), "\n")
		if (problems == "") != (test.problem == "") || !strings.Contains(problems, test.problem) {
			t.Errorf("%q: problems %q, want %q", value, problems, test.problem)
		}
	}
}

// TestClassAnnotationReason: the reason names the annotation.
func TestClassAnnotationReason(t *testing.T) {
	svc := service(func(s *corev1.Service) { s.Annotations = map[string]string{model.ClassAnnotation: "tcp"} })
	got := build(model.Inputs{Services: []*corev1.Service{svc}}).Frontends[0].ClassReason
	if diff := cmp.Diff("annotation nodevoy.io/class", got); diff != "" {
		t.Error(diff)
	}
}
