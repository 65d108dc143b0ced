// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/nodevoy/nodevoy/xds"
)

// tproxyRules take connections to three ranges to the listeners. What leaves
// for them is marked, comes back by lo, and is then taken: so this process can
// be the client of rules that are for forwarded packets. The ports are the
// servers' only, as the way back must be left alone.
func tproxyRules(ip, iptables, listen string, ranges [3]string) []string {
	out := []string{
		ip + " rule add fwmark 0x10/0x10 lookup 1064 priority 10",
		ip + " route add local default dev lo table 1064",
	}
	for i, port := range []int{23722, 23721, 23723} {
		out = append(out,
			fmt.Sprintf("%s -w -t mangle -A OUTPUT -p tcp -d %s --dport 80:5000 -j MARK --set-xmark 0x10/0x10", iptables, ranges[i]),
			fmt.Sprintf("%s -w -t mangle -A PREROUTING -p tcp -d %s --dport 80:5000 -j TPROXY --on-ip %s --on-port %d --tproxy-mark 0x10/0x10", iptables, ranges[i], listen, port))
	}
	return out
}

// TestTransparentListeners: connections that come by TPROXY carry their
// destination themselves.
func TestTransparentListeners(t *testing.T) {
	t.Cleanup(func() {
		for _, family := range [][2]string{{"ip", "iptables"}, {"ip -6", "ip6tables"}} {
			for _, c := range []string{family[1] + " -w -t mangle -F", family[0] + " rule del priority 10", family[0] + " route flush table 1064"} {
				if err := run(c); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for _, c := range append(
		tproxyRules("ip", "iptables", listen4, [3]string{"10.97.1.0/24", "10.97.2.0/24", "10.97.3.0/24"}),
		tproxyRules("ip -6", "ip6tables", listen6, [3]string{"fd00:97:1::/64", "fd00:97:2::/64", "fd00:97:3::/64"})...) {
		if err := run(c); err != nil {
			t.Fatal(err)
		}
	}
	web, db := webServer(t, "10.244.0.1:8080", "web-0"), tcpServer(t, "10.244.0.2:5000", "db-0")
	web6, db6 := webServer(t, "[fd00:244::1]:8080", "web-6"), tcpServer(t, "[fd00:244::2]:5000", "db-6")
	r := newFixtureWith(t, nodeOf(t,
		service{"web", "10.97.1.10:80", []string{web}},
		service{"db", "10.97.2.10:5000", []string{db}},
		service{"auto", "10.97.3.10:80", []string{web}},
		service{"web6", "[fd00:97:1::10]:80", []string{web6}},
		service{"db6", "[fd00:97:2::10]:5000", []string{db6}},
		service{"auto6", "[fd00:97:3::10]:80", []string{web6}},
	), setup{change: func(c *xds.Config) { c.Transparent = true }})
	mustGet(t, "10.97.1.10:80", "web-0")
	mustGreet(t, "10.97.2.10:5000", "db-0")
	mustGet(t, "10.97.3.10:80", "web-0")
	mustGet(t, "[fd00:97:1::10]:80", "web-6")
	mustGreet(t, "[fd00:97:2::10]:5000", "db-6")
	mustGet(t, "[fd00:97:3::10]:80", "web-6")
	if code, _, err := get("10.97.1.66:80"); err != nil || code != http.StatusServiceUnavailable {
		t.Errorf("unknown frontend: %d, %v; want 503", code, err)
	}
	if err := r.probe(); err != nil {
		t.Error(err)
	}
}
