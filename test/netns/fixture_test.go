// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/test/netns/space"
)

func TestMain(m *testing.M) { os.Exit(space.Main(m)) }

// limit is how long a test waits for what should come at once.
const limit = 5 * time.Second

// Addresses of the truth table's fixture, of either family: see at.
const (
	httpService   = "http-service"
	tcpService    = "tcp-service"
	detectService = "detect-service"
	// bypassed is a Service that nodevoy leaves to kube-proxy.
	bypassed = "bypassed-service"
	// idle is a Service without backends.
	idle = "idle-service"
	// intoNode is a Service that somebody gave an endpoint at Envoy's address, at a port
	// where something of the node listens, on all addresses.
	intoNode = "into-node-service"
	// backend is the pod behind all others.
	backend = "backend-pod"
)

// at is the address of a destination of the fixture, in one family. Pods have the
// numbers that space gives them: enrolled 2, stranger 3, backend 4.
func at(f family.Family, destination string) netip.AddrPort {
	four, six := "", ""
	switch destination {
	case httpService:
		four, six = "10.96.0.10:80", "[fd96::10]:80"
	case tcpService:
		four, six = "10.96.0.11:5432", "[fd96::11]:5432"
	case detectService:
		four, six = "10.96.0.12:9000", "[fd96::12]:9000"
	case bypassed:
		four, six = "10.96.0.13:80", "[fd96::13]:80"
	case idle:
		four, six = "10.96.0.14:80", "[fd96::14]:80"
	case intoNode:
		four, six = "10.96.0.16:80", "[fd96::16]:80"
	case "node":
		four, six = "192.0.2.2:23722", "[2001:db8::2]:23722"
	case backend:
		four, six = "10.1.0.4:8080", "[fd01::4]:8080"
	default:
		four, six = listener(plan.DefaultConfig(), family.V4, destination).String(), listener(plan.DefaultConfig(), family.V6, destination).String()
	}
	if f == family.V6 {
		return netip.MustParseAddrPort(six)
	}
	return netip.MustParseAddrPort(four)
}

// listener is where Envoy takes connections of a class; destination is "class-listener".
func listener(cfg plan.Config, f family.Family, destination string) netip.AddrPort {
	for _, c := range model.Classes() {
		if destination == c.String()+"-listener" {
			if f == family.V6 {
				return netip.AddrPortFrom(cfg.Address6, cfg.Ports.Of(c))
			}
			return netip.AddrPortFrom(cfg.Address4, cfg.Ports.Of(c))
		}
	}
	panic("no such destination: " + destination)
}

// services are all Services of the fixture.
func services() []string {
	return []string{httpService, tcpService, detectService, bypassed, idle, intoNode}
}

// nodePort is where something of the node listens.
const nodePort = 9090

// backendOf is where kube-proxy sends connections to a Service.
func backendOf(f family.Family, service string) netip.AddrPort {
	if service == intoNode {
		return netip.AddrPortFrom(plan.DefaultConfig().Address(f), nodePort)
	}
	return at(f, backend)
}

// enrolledIPs are the addresses of the one enrolled pod.
func enrolledIPs() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd01::2")}
}

// view is the fixture as the model sees it.
func view() *model.Node {
	n := &model.Node{Pods: []model.Pod{
		{Namespace: "shop", Name: "enrolled", IPs: enrolledIPs(), Enrolled: true},
		{Namespace: "other", Name: "stranger", IPs: []netip.Addr{netip.MustParseAddr("10.1.0.3"), netip.MustParseAddr("fd01::3")}},
	}}
	classes := map[string]model.Class{httpService: model.ClassHTTP, tcpService: model.ClassTCP, detectService: model.ClassDetect}
	for _, f := range family.All() {
		for _, s := range services() {
			fe := &model.Frontend{Address: at(f, s), Class: classes[s], Backends: []model.Backend{{Address: backendOf(f, s)}}}
			if s == bypassed || s == intoNode {
				fe.Bypass = "its label says so"
			}
			if s == idle {
				fe.Backends = nil
			}
			n.Frontends = append(n.Frontends, fe)
		}
	}
	return n
}

// setting is a way to run the fixture.
type setting struct {
	mechanism plan.Mechanism
	backend   netfilter.Backend
	wiring    space.Wiring
	// netfilter says whether iptables sees bridged frames.
	netfilter bool
	// proxy is kube-proxy's mode: iptables or nftables.
	proxy string
}

func (s setting) String() string {
	name := fmt.Sprintf("%s-%s-%s-kube-proxy-%s", s.mechanism, s.backend, s.wiring, s.proxy)
	if s.netfilter {
		name += "-br_netfilter"
	}
	return name
}

// settings are the ways that must work.
func settings() []setting {
	return []setting{
		{plan.DNAT, netfilter.NFT, space.Bridged, true, "iptables"},
		{plan.DNAT, netfilter.NFT, space.Bridged, false, "iptables"},
		{plan.DNAT, netfilter.NFT, space.Unnumbered, false, "iptables"},
		{plan.DNAT, netfilter.Legacy, space.Bridged, true, "iptables"},
		{plan.DNAT, netfilter.Legacy, space.Unnumbered, false, "iptables"},
		{plan.TPROXY, netfilter.NFT, space.Bridged, false, "nftables"},
		{plan.TPROXY, netfilter.NFT, space.Unnumbered, false, "nftables"},
		{plan.TPROXY, netfilter.NFT, space.Unnumbered, false, "iptables"},
		{plan.TPROXY, netfilter.Legacy, space.Unnumbered, false, "nftables"},
		{plan.TPROXY, netfilter.Legacy, space.Bridged, false, "iptables"},
	}
}

// fixture is a node with three pods, a stand-in for kube-proxy and one for Envoy.
type fixture struct {
	*space.Node
	t                           *testing.T
	cfg                         plan.Config
	applier                     *apply.Applier
	plan                        *plan.Plan
	enrolled, stranger, backend *space.Pod
}

// newFixture makes the fixture without anything of nodevoy's in it.
func newFixture(t *testing.T, s setting) *fixture {
	t.Helper()
	w := &fixture{Node: space.New(t), t: t, cfg: config(s.mechanism, s.backend)}
	if s.wiring == space.Bridged {
		w.Bridge(s.netfilter)
	}
	w.enrolled, w.stranger, w.backend = w.Pod(s.wiring), w.Pod(s.wiring), w.Pod(s.wiring)
	for _, f := range family.All() {
		w.backend.Listen(w.Node, "pod", at(f, backend))
	}
	// Of both families.
	w.Listen("node", netip.AddrPortFrom(netip.IPv6Unspecified(), nodePort), false)
	w.kubeProxy(s)
	w.applier = newApplier(t, w.cfg)
	w.plan = plan.Compile(view(), w.cfg)
	return w
}

// newFixtureApplied is newFixture with Envoy's stand-in, redirecting.
func newFixtureApplied(t *testing.T, s setting) *fixture {
	t.Helper()
	w := newFixture(t, s)
	w.must(w.applier.Prepare(t.Context(), w.plan))
	w.envoy(s.mechanism == plan.TPROXY)
	w.must(w.applier.Apply(t.Context(), w.plan))
	return w
}

func config(m plan.Mechanism, b netfilter.Backend) plan.Config {
	cfg := plan.DefaultConfig()
	cfg.Mechanism, cfg.Backend = m, b
	return cfg
}

func newApplier(t testing.TB, cfg plan.Config) *apply.Applier {
	t.Helper()
	log := zap.NewNop()
	if testing.Verbose() {
		log = zaptest.NewLogger(t)
	}
	a, err := apply.New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func (w *fixture) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// envoy listens where Envoy would.
func (w *fixture) envoy(transparent bool) {
	w.t.Helper()
	for _, f := range family.All() {
		for _, c := range model.Classes() {
			w.Listen(c.String(), listener(w.cfg, f, c.String()+"-listener"), transparent)
		}
	}
}

// kubeProxy writes what kube-proxy writes for the fixture's Services.
func (w *fixture) kubeProxy(s setting) {
	w.t.Helper()
	for _, f := range family.All() {
		if s.proxy == "nftables" {
			w.Feed("nft -f -", nftProxy(f))
			continue
		}
		command := map[family.Family]string{family.V4: "iptables", family.V6: "ip6tables"}[f]
		w.Feed(fmt.Sprintf("%s-%s-restore --noflush", command, s.backend), iptablesProxy(f))
	}
}

// podRange has all pods. As flannel does, the stand-in for kube-proxy also
// masquerades what comes to pods from elsewhere: replies of Envoy's that look
// like that must not be touched.
func podRange(f family.Family) string {
	return map[family.Family]string{family.V4: "10.1.0.0/24", family.V6: "fd01::/64"}[f]
}

func iptablesProxy(f family.Family) string {
	var b strings.Builder
	b.WriteString("*nat\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n")
	for _, s := range services() {
		if s != idle {
			to := at(f, s)
			fmt.Fprintf(&b, "-A KUBE-SERVICES -d %s -p tcp --dport %d -j DNAT --to-destination %s\n", to.Addr(), to.Port(), backendOf(f, s))
		}
	}
	// Replies between pods of one bridge come back here only if they must.
	fmt.Fprintf(&b, "-A POSTROUTING -d %s -m conntrack --ctstate DNAT -j MASQUERADE\n", at(f, backend).Addr())
	fmt.Fprintf(&b, "-A POSTROUTING ! -s %s -d %s -j MASQUERADE\n", podRange(f), podRange(f))
	fmt.Fprintf(&b, "COMMIT\n*filter\n:KUBE-SERVICES - [0:0]\n-A FORWARD -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A KUBE-SERVICES -d %s -j REJECT\nCOMMIT\n", at(f, idle).Addr())
	return b.String()
}

func nftProxy(f family.Family) string {
	ip := map[family.Family]string{family.V4: "ip", family.V6: "ip6"}[f]
	var translate strings.Builder
	for _, s := range services() {
		if s != idle {
			fmt.Fprintf(&translate, "    %s daddr %s tcp dport %d dnat to %s\n", ip, at(f, s).Addr(), at(f, s).Port(), backendOf(f, s))
		}
	}
	return fmt.Sprintf(`table %[1]s kube-proxy {
  chain nat-prerouting {
    type nat hook prerouting priority dstnat; policy accept;
%[2]s  }
  chain nat-output {
    type nat hook output priority -100; policy accept;
%[2]s  }
  chain nat-postrouting {
    type nat hook postrouting priority 100; policy accept;
    ct status dnat masquerade
    %[1]s saddr != %[4]s %[1]s daddr %[4]s masquerade
  }
  chain filter-forward {
    type filter hook forward priority -110; policy accept;
    %[1]s daddr %[3]s reject
  }
  chain filter-output {
    type filter hook output priority -90; policy accept;
    %[1]s daddr %[3]s reject
  }
}
`, ip, translate.String(), at(f, idle).Addr(), podRange(f))
}

// reached is what a pod, or the node for nil, reaches at a destination, in a few words.
func (w *fixture) reached(from *space.Pod, f family.Family, destination string) string {
	dial := w.Dial
	if from != nil {
		dial = from.Dial
	}
	return space.Reached(dial, at(f, destination))
}

// meant is the destination that who takes a connection sees: pods see their own
// address, Envoy the one that was dialled.
func (w *fixture) meant(f family.Family, row truth) netip.AddrPort {
	if row.want == "pod" {
		return at(f, backend)
	}
	return at(f, row.to)
}

func addr(t *testing.T, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
