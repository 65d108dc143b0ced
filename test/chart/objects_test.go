// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// objects are the rendered objects, by kind, that the tests look into.
type objects struct {
	daemonSet   appsv1.DaemonSet
	deployment  appsv1.Deployment
	pod         corev1.Pod
	clusterRole rbacv1.ClusterRole
	// kinds counts all of them.
	kinds map[string]int
}

// decode reads rendered YAML. An unknown or repeated field is an error.
func decode(t *testing.T, rendered []byte) objects {
	t.Helper()
	found := objects{kinds: map[string]int{}}
	for _, document := range documents(t, rendered) {
		var head struct {
			Kind string `json:"kind"`
		}
		if err := yaml.Unmarshal(document, &head); err != nil {
			t.Fatalf("%v in %s", err, document)
		}
		found.kinds[head.Kind]++
		var into any
		switch head.Kind {
		case "DaemonSet":
			into = &found.daemonSet
		case "Deployment":
			into = &found.deployment
		case "Pod":
			into = &found.pod
		case "ClusterRole":
			into = &found.clusterRole
		default:
			into = &map[string]any{}
		}
		if err := yaml.UnmarshalStrict(document, into); err != nil {
			t.Errorf("%s: %v", head.Kind, err)
		}
	}
	return found
}

// documents splits YAML and leaves out what has nothing but comments.
func documents(t *testing.T, rendered []byte) [][]byte {
	t.Helper()
	var all [][]byte
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(rendered)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		var content any
		if err := yaml.Unmarshal(document, &content); err != nil {
			t.Fatalf("%v in %s", err, document)
		}
		if content != nil {
			all = append(all, document)
		}
	}
}
