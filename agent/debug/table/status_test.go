// SPDX-License-Identifier: Apache-2.0

package table

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/debug/view"
)

func sample(now time.Time) view.Status {
	then := now.Add(-12 * time.Second)
	return view.Status{
		Summary: view.Summary{
			Node: "node-a", At: now, Phase: "redirecting",
			Envoy: view.Envoy{
				Connected: true, Since: &then, ListenersAcked: true, Nacks: 1,
				LastNacks: []view.Nack{{At: then, Type: "cluster", Detail: "no such thing\nnor another\n"}},
			},
			Redirect:      view.Redirect{Mode: "host", Mechanism: "dnat", Backend: "nft", Why: []string{"kube-proxy writes iptables", "mechanism dnat"}, Rules: 14, Applied: &then, DriftRepaired: 2},
			FrontendCount: map[string]int{"http": 1, "tcp": 0, "detect": 0, "bypass": 1},
			Watches:       []view.Watch{{Kind: "Pod", Synced: true}, {Kind: "Service", Synced: true}},
			Problems:      []string{"Service demo/web: spec.ports[1]: no name"},
		},
		Pods: []view.Pod{
			{Namespace: "demo", Name: "client", IPs: []string{"10.244.1.5", "fd00::5"}, Enrolled: true, Redirected: true, Reason: "namespace label"},
			{Namespace: "demo", Name: "starting", Reason: "no IP yet"},
		},
		Frontends: []view.Frontend{
			{Address: "10.96.0.10:80", Service: "demo/web/http", Class: "http", Why: "port name", InUse: true, Backends: []view.Backend{
				{Address: "10.244.1.6:8080", Pod: "demo/web-1"},
				{Address: "10.244.1.7:8080", Pod: "demo/web-2"},
				{Address: "10.244.2.6:8080", Pod: "demo/web-3"},
				{Address: "10.244.2.7:8080", Pod: "demo/web-4"},
			}},
			{Address: "10.96.0.11:53", Service: "demo/db/sql", Class: "tcp", Why: "appProtocol", Bypass: "Service label", Backends: []view.Backend{{Address: "10.9.9.9:53"}}},
		},
	}
}

const sampleTable = `NODE     node-a
STATE    redirecting
MODE     host, by dnat (iptables-nft), 1 of 1 enrolled pods redirected
OBJECTS  all 2 kinds read and followed
ENVOY    connected for 12s, listeners accepted, 0 updates unanswered, 1 refused
KERNEL   14 rules, applied 12s ago, drift repaired 2 times
BECAUSE  kube-proxy writes iptables
         mechanism dnat

NAMESPACE  POD       IP                  ENROLLED  REDIRECTED  WHY
demo       client    10.244.1.5,fd00::5  yes       yes         namespace label
demo       starting  -                   no        no          no IP yet

FRONTEND       SERVICE        CLASS  IN USE  BACKENDS                                WHY
10.96.0.10:80  demo/web/http  http   yes     demo/web-1, demo/web-2, demo/web-3, +1  port name
10.96.0.11:53  demo/db/sql    tcp    no      10.9.9.9:53                             not redirected: Service label

REFUSED BY ENVOY  AGE  DETAIL
cluster           12s  no such thing; nor another

PROBLEMS
Service demo/web: spec.ports[1]: no name
`

func TestTable(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	v := sample(now)
	var out bytes.Buffer
	if err := Status(&out, &v, now); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sampleTable, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	v.Frontends, v.Envoy.Connected, v.Phase, v.Reason = nil, false, "waiting for Envoy", "no Envoy is connected"
	out.Reset()
	if err := Status(&out, &v, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"waiting for Envoy: no Envoy is connected\n", "ENVOY    not connected\n", "No frontend is in use (2 are known, 1 of them left to kube-proxy; --all shows them).\n"} {
		if !bytes.Contains(out.Bytes(), []byte(want)) {
			t.Errorf("table lacks %q:\n%s", want, &out)
		}
	}
}

// TestTableOfFaults shows what is wrong with the agent itself: what it can't do, what
// it can't tell, and what it can't read.
func TestTableOfFaults(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	v, since := sample(now), now.Add(-time.Minute)
	v.NotReady, v.Stuck = "no room\nno memory", "the loop has not moved for 2m0s"
	v.Redirect.Error, v.Redirect.CheckError = "no room\nno memory", "list nat:\nbusy"
	v.Limits = []view.Limit{{What: "requests at a time", Most: "1000", Above: "further ones wait"}, {What: "headers", Most: "96 KiB", Above: "Envoy answers 431"}}
	v.Memory = view.Memory{Used: 200 << 20, Limit: 256 << 20, Left: map[string]int{"shop/web": 2, "scan/wide": 6000}}
	for i := range 9 {
		v.Memory.Left[fmt.Sprintf("more/svc-%d", i)] = 1
	}
	v.Memory.LeftCount, v.Memory.LeftServices = 6011, len(v.Memory.Left)
	v.Watches = []view.Watch{
		{Kind: "Namespace"},
		{Kind: "Node", Synced: true},
		{Kind: "Pod", Error: "not the whole list", Since: &since},
		{Kind: "Policy", Synced: true, Absent: true},
		{Kind: "Service", Synced: true, Error: "forbidden", Since: &since},
	}
	var out bytes.Buffer
	if err := Status(&out, &v, now); err != nil {
		t.Fatal(err)
	}
	const want = `NODE       node-a
STATE      redirecting
NOT READY  no room; no memory
STUCK      the loop has not moved for 2m0s
MODE       host, by dnat (iptables-nft), 1 of 1 enrolled pods redirected
OBJECTS    Namespace not read yet
           Pod NOT read for 1m0s: not the whole list
           Policy not served
           Service NOT followed for 1m0s: forbidden
ENVOY      connected for 12s, listeners accepted, 0 updates unanswered, 1 refused
KERNEL     14 rules, applied 12s ago, drift repaired 2 times, FAILING: no room; no memory, CAN'T TELL whether they are in place: list nat:; busy
MEMORY     200 of 256 MiB of Envoy's for Services in use
           6011 frontends LEFT to kube-proxy for want of it: scan/wide (6000), shop/web (2), more/svc-0 (1), more/svc-1 (1), more/svc-2 (1), more/svc-3 (1), more/svc-4 (1), more/svc-5 (1), more/svc-6 (1), more/svc-7 (1), and 1 other Services
`
	if got, _, _ := bytes.Cut(out.Bytes(), []byte("BECAUSE")); string(got) != want {
		t.Errorf("table (-want +got):\n%s", cmp.Diff(want, string(got)))
	}
	const limits = `
LIMIT               AT MOST  ABOVE IT
requests at a time  1000     further ones wait
headers             96 KiB   Envoy answers 431
`
	if !strings.Contains(out.String(), limits) {
		t.Errorf("the table lacks%s\n%s", limits, &out)
	}
	v.Phase, v.Reason, v.NotReady = "waiting for Envoy", "no Envoy is connected", "waiting for Envoy: no Envoy is connected"
	out.Reset()
	if err := Status(&out, &v, now); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(out.Bytes(), []byte("NOT READY")) {
		t.Errorf("the table says twice what the state is:\n%s", &out)
	}
}

// TestTableOfPodMode shows each pod's network namespace, and why a pod that is
// enrolled is not redirected.
func TestTableOfPodMode(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	v := sample(now)
	v.Envoy.Version = "1.40.0"
	v.Redirect.Mode, v.Redirect.Mechanism, v.Redirect.Leftover = "pod", "", "no permission"
	v.Pods[0].Netns = "/run/netns/cni-1"
	v.Pods = append(v.Pods, view.Pod{
		Namespace: "demo", Name: "web", IPs: []string{"10.244.1.6"}, Enrolled: true, Reason: "namespace label",
		NotRedirected: "rules of its own:\n-j ACCEPT", Netns: "/run/netns/cni-2",
	}, view.Pod{
		Namespace: "demo", Name: "worker", IPs: []string{"10.244.1.7"}, Reason: "own label", NotRedirected: "it has connections", Netns: "/run/netns/cni-3",
	})
	var out bytes.Buffer
	if err := Status(&out, &v, now); err != nil {
		t.Fatal(err)
	}
	const want = `NODE     node-a
STATE    redirecting
MODE     pod (iptables-nft), 1 of 2 enrolled pods redirected
OBJECTS  all 2 kinds read and followed
ENVOY    1.40.0, connected for 12s, listeners accepted, 0 updates unanswered, 1 refused
KERNEL   14 rules, applied 12s ago, drift repaired 2 times
LEFT     of the other mode: no permission
BECAUSE  kube-proxy writes iptables
         mechanism dnat

NAMESPACE  POD       IP                  ENROLLED  REDIRECTED  WHY                            NETWORK NAMESPACE
demo       client    10.244.1.5,fd00::5  yes       yes         namespace label                /run/netns/cni-1
demo       starting  -                   no        no          no IP yet                      -
demo       web       10.244.1.6          yes       no          rules of its own:; -j ACCEPT   /run/netns/cni-2
demo       worker    10.244.1.7          no        no          own label; it has connections  /run/netns/cni-3
`
	if got, _, _ := bytes.Cut(out.Bytes(), []byte("\nFRONTEND")); string(got) != want {
		t.Errorf("table (-want +got):\n%s", cmp.Diff(want, string(got)))
	}
}

// TestTableIsNotForged: what users wrote makes no line or column of the table, and is
// nothing that a terminal acts on.
func TestTableIsNotForged(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	v := sample(now)
	v.Pods = []view.Pod{{Namespace: "demo", Name: "a\nkube-system\tb", Reason: "\x1b[2Jx\u2028\xff"}}
	v.Problems = []string{"Service demo/web:\nSTATE redirecting\r\t\u0085"}
	var out bytes.Buffer
	if err := Status(&out, &v, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`demo       a\nkube-system\tb  -   no        no          \x1b[2Jx\u2028\xff` + "\n",
		`Service demo/web:\nSTATE redirecting\r\t\u0085` + "\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line %q in\n%s", want, out.String())
		}
	}
}
