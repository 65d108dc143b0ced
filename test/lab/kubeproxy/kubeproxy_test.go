// SPDX-License-Identifier: Apache-2.0

package kubeproxy

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// endpoint makes an endpoint with these conditions.
func endpoint(ip string, ready, serving bool) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses:  []string{ip},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving},
	}
}

// slice makes an EndpointSlice of the Service ns/web with a port named http.
func slice(endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	name, port := "http", int32(8080)
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		Ports:      []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
		Endpoints:  endpoints,
	}
}

func TestPorts(t *testing.T) {
	web := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"},
		Spec: corev1.ServiceSpec{
			ClusterIPs: []string{"10.96.0.1", "fd00::1"},
			Ports:      []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
	headless := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIPs: []string{corev1.ClusterIPNone}, Ports: web.Spec.Ports}}
	for name, c := range map[string]struct {
		slices []*discoveryv1.EndpointSlice
		want4  []string
	}{
		"none":  {nil, nil},
		"ready": {[]*discoveryv1.EndpointSlice{slice(endpoint("10.0.0.2", true, true)), slice(endpoint("10.0.0.1", true, true), endpoint("10.0.0.3", false, true))}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}},
		"terminating, as none is ready": {
			[]*discoveryv1.EndpointSlice{slice(endpoint("10.0.0.3", false, true), endpoint("10.0.0.4", false, false))}, []string{"10.0.0.3:8080"},
		},
		"of the other family": {[]*discoveryv1.EndpointSlice{slice(endpoint("fd00::2", true, true))}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			ports := Ports([]*corev1.Service{web, headless}, c.slices)
			if len(ports) != 2 || ports[0].Name != "ns/web:http" || ports[0].Address.String() != "10.96.0.1:80" || ports[0].Protocol != "tcp" {
				t.Fatalf("got ports %+v", ports)
			}
			var got []string
			for _, e := range ports[0].Endpoints {
				got = append(got, e.String())
			}
			if diff := cmp.Diff(c.want4, got); diff != "" {
				t.Errorf("endpoints, -want +got:\n%s", diff)
			}
		})
	}
}

// port makes a port with so many endpoints.
func port(endpoints int) Port {
	p := Port{Name: "ns/web:http", Protocol: "tcp", Address: netip.MustParseAddrPort("10.96.0.1:80")}
	for i := range endpoints {
		p.Endpoints = append(p.Endpoints, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 8080))
	}
	return p
}

// TestRestoreText looks at the rules that make kube-proxy what it is.
func TestRestoreText(t *testing.T) {
	text, chains := restoreText([]Port{port(3)}, "10.244.0.0/16", nil)
	for _, want := range []string{
		"-d 10.96.0.1/32 --dport 80 -j KUBE-SVC-",
		"--probability 0.3333333333 -j KUBE-SEP-",
		"--probability 0.5000000000 -j KUBE-SEP-",
		`-m comment --comment "ns/web:http -> 10.0.0.3:8080" -j KUBE-SEP-`,
		"-j DNAT --to-destination 10.0.0.2:8080",
		"-s 10.0.0.1/32 -j KUBE-MARK-MASQ",
		":KUBE-IPTABLES-HINT - [0:0]",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if len(chains) != 4 {
		t.Errorf("%d chains of Services, want 4", len(chains))
	}
	text, chains = restoreText([]Port{port(0)}, "10.244.0.0/16", chains)
	if !strings.Contains(text, "--dport 80 -j REJECT") || strings.Count(text, "\n-X KUBE-S") != 4 || len(chains) > 0 {
		t.Errorf("no rejection, or old chains stay, in:\n%s", text)
	}
}

func TestTableText(t *testing.T) {
	text := tableText("ip", []Port{port(2)}, "10.244.0.0/16")
	for _, want := range []string{"numgen random mod 2 vmap { 0 : goto endpoint-", "dnat to 10.0.0.2:8080", "10.96.0.1 . tcp . 80 : goto service-"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	text = tableText("ip", []Port{port(1)}, "10.244.0.0/16")
	if !strings.Contains(text, "\t\tgoto endpoint-") || strings.Contains(text, "numgen") {
		t.Errorf("a choice of one endpoint in:\n%s", text)
	}
	text = tableText("ip", []Port{port(0)}, "10.244.0.0/16")
	if !strings.Contains(text, "10.96.0.1 . tcp . 80 : goto reject-chain") {
		t.Errorf("no rejection in:\n%s", text)
	}
}

// TestSyncPutsJumpsFirst wants missing jumps inserted at the top of their
// chains, as kube-proxy does, and those that are there left alone.
func TestSyncPutsJumpsFirst(t *testing.T) {
	missing := errors.New("no such rule")
	var inserted []string
	run := func(_ context.Context, _ string, argv ...string) (string, error) {
		line := strings.Join(argv, " ")
		switch {
		case strings.Contains(line, " -C PREROUTING"):
			return "", missing
		case strings.Contains(line, " -I "):
			inserted = append(inserted, line)
		}
		return "", nil
	}
	if err := NewIPTables(run, "legacy", "10.244.0.0/16", "fd00::/48").Sync(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"iptables-legacy -w 5 -t nat -I PREROUTING -j KUBE-SERVICES",
		"ip6tables-legacy -w 5 -t nat -I PREROUTING -j KUBE-SERVICES",
	}
	if diff := cmp.Diff(want, inserted, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("inserted jumps, -want +got:\n%s", diff)
	}
}
