// SPDX-License-Identifier: Apache-2.0

package envoyadmin

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestParseClusters reads what Envoy 1.40 prints.
func TestParseClusters(t *testing.T) {
	got, err := parseClusters([]byte(`{"cluster_statuses": [{"name": "tcp 10.96.0.10:80", "host_statuses": [
		{"address": {"socket_address": {"address": "10.1.0.1", "port_value": 8080}}, "weight": 1, "locality": {"zone": "a"},
		 "stats": [{"name": "cx_total", "value": "12"}, {"name": "rq_error"}, {"type": "GAUGE", "name": "cx_active", "value": "3"}],
		 "health_status": {"eds_health_status": "HEALTHY"}},
		{"address": {"socket_address": {"address": "fd00::1", "port_value": 8080}}, "weight": 2, "locality": {},
		 "health_status": {"eds_health_status": "DRAINING", "failed_outlier_check": true}}
	]}, {"name": "empty"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Cluster{
		{Name: "tcp 10.96.0.10:80", Hosts: []Host{
			{Address: netip.MustParseAddrPort("10.1.0.1:8080"), Healthy: true, Weight: 1, Zone: "a", Stats: map[string]uint64{"cx_total": 12, "cx_active": 3}},
			{Address: netip.MustParseAddrPort("[fd00::1]:8080"), Ejected: true, Flags: []string{"eds_health_status DRAINING", "failed_outlier_check"}, Weight: 2},
		}},
		{Name: "empty"},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Errorf("clusters (-want +got):\n%s", diff)
	}
	for _, bad := range []string{`{`, `{"cluster_statuses": [{"host_statuses": [{}]}]}`} {
		if got, err := parseClusters([]byte(bad)); err == nil {
			t.Errorf("%s is read as %v", bad, got)
		}
	}
}
