// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// conform runs kubeconform, strictly, on rendered YAML. The kinds of the
// Prometheus operator, which Kubernetes doesn't have, are in testdata/schemas:
// the fields that the chart uses, no more.
func conform(t *testing.T, schemas string, rendered []byte) (report []byte, failure string) {
	t.Helper()
	tools, err := filepath.Abs("../tools/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	const file = "{{.ResourceKind}}{{.KindSuffix}}.json"
	return run(t, rendered, "go", "tool", "-modfile="+tools, "kubeconform", "-strict", "-summary",
		"-schema-location", filepath.Join(schemas, file), "-schema-location", filepath.Join("testdata/schemas", file), "-")
}

func TestKubeconform(t *testing.T) {
	schemas := kubernetesSchemas(t)
	for name, file := range cases(t) {
		t.Run(name, func(t *testing.T) {
			rendered := render(t, "--values", file)
			report, failure := conform(t, schemas, rendered)
			if failure != "" {
				t.Fatalf("%s%s", report, failure)
			}
			if !bytes.Contains(report, []byte("Skipped: 0")) || bytes.Contains(report, []byte(" 0 resources")) {
				t.Errorf("not everything was looked at: %s", report)
			}
		})
	}
}

// Schemas that take anything would pass everything.
func TestKubeconformRefuses(t *testing.T) {
	schemas := kubernetesSchemas(t)
	rendered := string(render(t, "--values", "testdata/all.values.yaml"))
	for name, change := range map[string][2]string{
		"a field in the wrong place": {"hostNetwork: true", "hostNetwork: true\n      privileged: true"},
		"a misspelled field":         {"terminationGracePeriodSeconds: 65", "terminationGracePeriod: 65"},
		"a wrong type":               {"hostNetwork: true", "hostNetwork: on it"},
		"another API's field":        {"podMetricsEndpoints:", "endpoints:"},
		"a monitor's relabeling":     {"targetLabel: __address__", "target_label: __address__"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(rendered, change[0], change[1], 1)
			if changed == rendered {
				t.Fatalf("%q is not in the rendered chart", change[0])
			}
			if report, failure := conform(t, schemas, []byte(changed)); failure == "" {
				t.Errorf("accepted: %s", report)
			}
		})
	}
}
