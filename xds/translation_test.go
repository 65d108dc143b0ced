// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

// golden compares with a file of testdata, or writes it if told -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (-update writes it)", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestGoldens(t *testing.T) {
	text, err := Bootstrap(testConfig())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "bootstrap.yaml", text)

	node := xdstest.Node(
		xdstest.Web("10.244.1.1", "10.244.2.1", "10.244.1.2"),
		xdstest.Service{Name: "empty", ClusterIP: "10.96.0.11", Port: 81, Unnamed: true},
		xdstest.Service{Name: "six", ClusterIP: "fd00::10", Port: 80, Pods: []string{"fd00:244::1"}},
		xdstest.Service{Name: "out", ClusterIP: "10.96.0.12", Port: 80, Pods: []string{"10.244.1.3"}, Labels: map[string]string{"nodevoy.io/redirect": "disabled"}},
	)
	text, err = Render(testConfig(), node, nil)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "render.yaml", text)
	again, err := Render(testConfig(), node, nil)
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("rendered twice: %v, not the same", err)
	}

	other := testConfig()
	other.Transparent, other.AccessLog, other.Address6 = true, AccessLogJSON, netip.Addr{}
	text, err = Render(other, xdstest.Node(), nil)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "render-tproxy-json.yaml", text)
}

func TestRenderRefusesBadConfiguration(t *testing.T) {
	if _, err := Render(Config{}, xdstest.Node(), nil); err == nil {
		t.Error("Render takes an empty configuration")
	}
	if _, err := Bootstrap(Config{}); err == nil {
		t.Error("Bootstrap takes an empty configuration")
	}
}

// TestBadText: what a user wrote that is not UTF-8 stops nothing.
func TestBadText(*testing.T) {
	bad := "\xff\xfe"
	for _, in := range []Inputs{
		clusterInputs{port: model.ServicePort{Namespace: bad, Service: bad, PortName: bad}},
		endpointsInputs{backends: []model.Backend{{Namespace: bad, Pod: bad, Node: bad, Zone: bad}}},
		ListenerSpec{Target: model.PodTarget{Namespace: bad, Pod: bad, UID: bad, Netns: bad, V4: true}},
	} {
		pack(in.Message(podConfig()))
	}
}
