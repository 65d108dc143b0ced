// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

func TestWorkloadOf(t *testing.T) {
	long := strings.Repeat("a", 57)
	for pod, want := range map[string]string{
		"web-6d4b75cb6d-x7k2z":            "web",            // of a Deployment
		"web-v2-5d78c9869d-q4wzn":         "web-v2",         // whose name has a dash
		"web-1-5d78c9869d-q4wzn":          "web-1",          // or a number
		"agent-x7k2z":                     "agent",          // of a DaemonSet
		"db-0":                            "db",             // of a StatefulSet
		"db-12":                           "db",             //
		"report-29412345-x7k2z":           "report",         // of a CronJob
		"pi-3-x7k2z":                      "pi-3",           // of a Job with an index: its number can be the Job's
		"web":                             "web",            // made by a user
		"cart-front":                      "cart-front",     //
		"nginx-proxy":                     "nginx-proxy",    //
		"web-6d4b75cb6d":                  "web-6d4b75cb6d", // no random suffix
		"web-decade-x7k2z":                "web-decade",     // no hash
		"web-5d78c9869d4-q4wzn":           "web-5d78c9869d4",
		"-0":                              "-0",
		"-x7k2z":                          "-x7k2z",
		"x7k2z":                           "x7k2z",
		"web-":                            "web-",
		"":                                "",
		long + "-x7k2z":                   long, // the longest that isn't cut
		long + "ax7k2z":                   long + "a",
		long[:51] + "-5d78c9" + "x7k2z":   long[:51], // of a long Deployment
		long[:51] + "-5d78c9" + "-x7k2z":  long[:51],
		long[:50] + "-5d78c9" + "wx7k2z":  long[:50] + "-5d78c9w",
		long[:50] + "-x5d78c9" + "-x7k2z": long[:50] + "-x5d78c9",
	} {
		if got := model.WorkloadOf(pod); got != want {
			t.Errorf("WorkloadOf(%q) = %q, want %q", pod, got, want)
		}
	}
}

// TestWorkload: the owner of a local pod says what runs it, and its name says the same
// where that comes from Kubernetes.
func TestWorkload(t *testing.T) {
	for name, test := range map[string]struct{ pod, kind, owner, want string }{
		"Deployment":              {"web-6d4b75cb6d-x7k2z", "ReplicaSet", "web-6d4b75cb6d", "web"},
		"ReplicaSet of a user":    {"web-x7k2z", "ReplicaSet", "web", "web"},
		"StatefulSet":             {"db-0", "StatefulSet", "db", "db"},
		"StatefulSet with a name": {"db-6d4b75cb6d-0", "StatefulSet", "db-6d4b75cb6d", "db-6d4b75cb6d"},
		"DaemonSet":               {"agent-x7k2z", "DaemonSet", "agent", "agent"},
		"CronJob":                 {"report-29412345-x7k2z", "Job", "report-29412345", "report"},
		"Job":                     {"pi-3-x7k2z", "Job", "pi", "pi"},
		"static pod":              {"etcd-node-1", "Node", "node-1", "etcd"},
		"another controller":      {"pg-1", "Cluster", "pg", "pg"},
		"none":                    {"web-6d4b75cb6d-x7k2z", "", "", "web"},
		"not its controller":      {"web-6d4b75cb6d-x7k2z", "-", "other", "web"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pod(test.pod, "10.1.0.1")
			if test.kind != "" {
				p.OwnerReferences = []metav1.OwnerReference{{Kind: test.kind, Name: test.owner, Controller: new(test.kind != "-")}}
			}
			node := model.Build(model.Inputs{NodeName: nodeName, Pods: []*corev1.Pod{p}}, model.DefaultOptions())
			if got := node.Pods[0].Workload; got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
