// SPDX-License-Identifier: Apache-2.0

package files_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap/zaptest"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/agent/files"
	"github.com/nodevoy/nodevoy/test/sourcetest"
)

func TestContract(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness { return directory{t.TempDir()} })
}

// directory is a sourcetest.Harness: a file for each object.
type directory struct{ path string }

func (d directory) Source(t testing.TB, nodeName string) sourcetest.Source {
	t.Helper()
	source, err := files.New(d.path, nodeName, zaptest.NewLogger(t))
	if err != nil {
		t.Fatalf("make source: %v", err)
	}
	return source
}

func (d directory) file(object sourcetest.Object) string {
	name := fmt.Sprintf("%T-%s-%s.yaml", object, object.GetNamespace(), object.GetName())
	return filepath.Join(d.path, name)
}

func (d directory) Put(t testing.TB, object sourcetest.Object) {
	t.Helper()
	object = object.DeepCopyObject().(sourcetest.Object)
	kinds, _, err := scheme.Scheme.ObjectKinds(object)
	if err != nil {
		t.Fatalf("find kind of %T: %v", object, err)
	}
	object.GetObjectKind().SetGroupVersionKind(kinds[0])
	text, err := yaml.Marshal(object)
	if err != nil {
		t.Fatalf("marshal %T: %v", object, err)
	}
	if err := os.WriteFile(d.file(object), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d directory) Delete(t testing.TB, object sourcetest.Object) {
	t.Helper()
	if err := os.Remove(d.file(object)); err != nil {
		t.Fatal(err)
	}
}
