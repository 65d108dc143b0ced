// SPDX-License-Identifier: Apache-2.0

package table_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/advise"
	"github.com/nodevoy/nodevoy/agent/debug/table"
	"github.com/nodevoy/nodevoy/agent/flow"
)

func TestAdvice(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	since := now.Add(-90 * time.Second)
	web := flow.Service{Namespace: "shop", Name: "web", Port: "http"}
	pod := func(name string) flow.Peer { return flow.Peer{Namespace: "shop", Pod: name} }
	var out strings.Builder
	err := table.Advice(&out, &advise.Advice{
		Node: "node-a", Connections: 1, Note: "the agent has just started",
		Stuck: []advise.Stuck{
			{Caller: pod("a"), Service: web, Backend: pod("web-1"), Connections: 2, Since: &since, Backends: 3, Would: "each request would go elsewhere"},
			{Caller: pod("b"), Service: web, Backend: flow.Peer{Address: netip.MustParseAddrPort("10.0.0.1:80")}, Connections: 1, Backends: 3, Would: "nothing"},
		},
		Services: []advise.Service{
			{Service: web, Class: "detect", Why: "port name http", Callers: 2, Backends: []advise.Backend{
				{Peer: pod("web-1"), Share: 1, Fair: 0.5}, {Peer: pod("web-2"), Fair: 0.5},
			}},
			{Service: flow.Service{Namespace: "shop", Name: "db", Port: "5432"}, Class: "tcp", Bypass: "sessionAffinity \x1b[2J", Callers: 1, Backends: []advise.Backend{{Peer: pod("db-0"), Share: 1, Fair: 1}}},
		},
		Namespaces: []advise.Namespace{
			{Namespace: "in", Enrolled: []string{"x", "y"}},
			{Namespace: "shop", Would: []string{"a", "b", "c", "d"}, Others: []advise.Pod{{Pod: "host", Why: "hostNetwork"}, {Pod: "no", Why: "own label"}}},
		},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	want := `NODE       node-a
LOOKED AT  1 open connection of this node's pods to Services, past Envoy
NOTE       the agent has just started

STUCK CALLER  SERVICE        ONLY BACKEND       CONNECTIONS  SINCE  IF IT WERE ENROLLED
shop/a        shop/web/http  shop/web-1, of 3   2            1m30s  each request would go elsewhere
shop/b        shop/web/http  10.0.0.1:80, of 3  1            ?      nothing

SERVICE        WOULD BE            WHY                      CALLERS  BACKEND     SHARE  FAIR
shop/web/http  detect              port name http           2        shop/web-1  100 %  50 %
                                                                     shop/web-2  0 %    50 %
shop/db/5432   left to kube-proxy  sessionAffinity \x1b[2J  1        shop/db-0   100 %  100 %

NAMESPACE  ENROLLED  ITS LABEL WOULD ENROLL  AND NOT
in         2         -                       -
shop       0         a, b, c and 1 more      host: hostNetwork
                                             no: own label
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
	out.Reset()
	if err := table.Advice(&out, &advise.Advice{Node: "node-a"}, now); err != nil || !strings.Contains(out.String(), "No caller holds") {
		t.Errorf("%v: nothing to advise:\n%s", err, out.String())
	}
}
