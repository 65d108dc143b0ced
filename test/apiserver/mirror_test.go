// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/nodevoy/nodevoy/test/kubetest"
	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/sourcetest"
)

// mirror keeps the objects of an API server like those of a lab, and so
// stands in for kubelets and controllers.
type mirror struct {
	lab     *lab.Lab
	harness kubetest.Harness
	// texts and objects are what was put last, by file.
	texts   map[string]string
	objects map[string]sourcetest.Object
}

func newMirror(t testing.TB, l *lab.Lab, server *Server) *mirror {
	t.Helper()
	return &mirror{
		lab: l, harness: kubetest.Harness{Client: server.Client(t), Config: server.Config()},
		texts: map[string]string{}, objects: map[string]sourcetest.Object{},
	}
}

// publish makes the lab's objects, as they are now, those of kube-proxy
// and of the API server.
func (m *mirror) publish(t testing.TB) {
	t.Helper()
	check(t, m.lab.Publish(t.Context()))
	files := must(filepath.Glob(filepath.Join(m.lab.ObjectsDir(), "*.yaml")))(t)
	slices.SortFunc(files, func(a, b string) int { return rank(a) - rank(b) })
	for _, file := range files {
		text := string(must(os.ReadFile(file))(t))
		if m.texts[file] == text {
			continue
		}
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode([]byte(text), nil, nil)
		check(t, err)
		m.objects[file] = object.(sourcetest.Object)
		// The API server gives ids of its own.
		m.objects[file].SetUID("")
		if service, ok := object.(*corev1.Service); ok && len(service.Spec.ClusterIPs) == 2 {
			service.Spec.IPFamilyPolicy = new(corev1.IPFamilyPolicyRequireDualStack)
		}
		m.harness.Put(t, m.objects[file])
		m.texts[file] = text
	}
	for file, object := range m.objects {
		if !slices.Contains(files, file) {
			m.harness.Delete(t, object)
			delete(m.objects, file)
			delete(m.texts, file)
		}
	}
}

// rank orders files of objects: what is in a namespace comes after it.
func rank(file string) int {
	if strings.HasPrefix(filepath.Base(file), "namespace-") {
		return 0
	}
	return 1
}

// must unwraps a value and its error; the error ends the test.
func must[T any](value T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		check(t, err)
		return value
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
