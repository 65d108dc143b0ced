// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
)

// The pods are on a bridge that has the gateways' addresses.
const (
	bridge   = "pods"
	gateway4 = "172.20.0.1"
	gateway6 = "fd01::1"
)

// upstreamMark is that of Envoy's own connections.
const upstreamMark = 0x10

// pod is a network namespace with a path, as a container runtime makes them,
// whose connections to the frontend ranges go to a listener in it.
type pod struct {
	t      *testing.T
	ns     netns.NsHandle
	v4, v6 string
	target model.PodTarget
}

// newPod makes a pod in namespace shop; number, from 2 on, is the end of its
// addresses.
func newPod(t *testing.T, name string, number int) *pod {
	t.Helper()
	p := newNamespace(t, name)
	p.v4, p.v6 = fmt.Sprintf("172.20.0.%d", number), fmt.Sprintf("fd01::%x", number)
	veth := fmt.Sprintf("veth%d", number)
	t.Cleanup(func() { _ = run("ip link del " + veth) }) // It may be gone with the namespace.
	for _, c := range []string{
		"ip link add " + veth + " type veth peer name eth0 netns " + name,
		"ip link set " + veth + " master " + bridge + " up",
		"ip -n " + name + " link set eth0 up",
		"ip -n " + name + " addr add " + p.v4 + "/16 dev eth0",
		"ip -n " + name + " addr add " + p.v6 + "/64 dev eth0 nodad",
		"ip -n " + name + " route add default via " + gateway4,
		"ip -n " + name + " -6 route add default via " + gateway6,
	} {
		if err := run(c); err != nil {
			t.Fatal(err)
		}
	}
	var rules4, rules6 strings.Builder
	for _, rules := range []*strings.Builder{&rules4, &rules6} {
		fmt.Fprintf(rules, "*nat\n-A OUTPUT -m mark --mark %#x/%#x -j RETURN\n", upstreamMark, upstreamMark)
	}
	for _, r := range ranges() {
		fmt.Fprintf(&rules4, "-A OUTPUT -d %s -p tcp -j REDIRECT --to-ports %d\n", r.v4, r.port)
		fmt.Fprintf(&rules6, "-A OUTPUT -d %s -p tcp -j REDIRECT --to-ports %d\n", r.v6, r.port)
	}
	for tool, rules := range map[string]*strings.Builder{"iptables-restore": &rules4, "ip6tables-restore": &rules6} {
		p.ok(p.do(func() error {
			cmd := exec.Command(tool, "-w")
			cmd.Stdin = strings.NewReader(rules.String() + "COMMIT\n")
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", tool, err, out)
			}
			return nil
		}))
	}
	return p
}

// newNamespace makes a pod that has nothing but a loopback interface.
func newNamespace(t *testing.T, name string) *pod {
	t.Helper()
	p := &pod{t: t, target: model.PodTarget{Namespace: "shop", Pod: name, UID: "uid-" + name, Workload: "client", Netns: "/run/netns/" + name, V4: true, V6: true}}
	for _, c := range []string{"ip netns add " + name, "ip -n " + name + " link set lo up"} {
		p.ok(run(c))
	}
	var err error
	p.ns, err = netns.GetFromPath(p.target.Netns)
	p.ok(err)
	t.Cleanup(func() {
		_ = p.ns.Close()
		if _, err := os.Stat(p.target.Netns); err == nil {
			p.ok(run("ip netns del " + name))
		}
	})
	return p
}

func (p *pod) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// do runs f in the pod's network namespace.
func (p *pod) do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if err := netns.Set(p.ns); err != nil {
			result <- fmt.Errorf("enter %s: %w", p.target.Pod, err)
			return
		}
		result <- f()
	}()
	return <-result
}

// DialContext connects from the pod.
func (p *pod) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = errors.Join(p.do(func() error {
		c, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
		return err
	}))
	return c, err
}

// listen takes a port in the pod.
func (p *pod) listen(address string) net.Listener {
	p.t.Helper()
	var l net.Listener
	p.ok(p.do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}))
	p.t.Cleanup(func() { _ = l.Close() })
	return l
}

// probe asks the pod's HTTP listener itself, on each of its addresses.
func (p *pod) probe() error {
	var errs []error
	if p.target.V4 {
		errs = append(errs, probe(p, "127.0.0.1"))
	}
	if p.target.V6 {
		errs = append(errs, probe(p, "::1"))
	}
	return errors.Join(errs...)
}

// client makes requests from the pod, over connections that are kept.
func (p *pod) client(h2 bool) *http.Client {
	transport := &http.Transport{DialContext: p.DialContext}
	if h2 {
		transport.Protocols = &http.Protocols{}
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	p.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

// get makes one request from the pod on a connection of its own.
func (p *pod) get(address string) (int, string, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: p.DialContext, DisableKeepAlives: true}}
	return readAll(client.Get("http://" + address + "/"))
}

// readAll reads a response to its end.
func readAll(resp *http.Response, err error) (int, string, error) {
	if err != nil {
		return 0, "", err
	}
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), errors.Join(err, resp.Body.Close())
}

// say sends text from the pod and returns all that comes until the connection
// is closed.
func (p *pod) say(address, text string) (string, error) {
	c, err := p.DialContext(context.Background(), "tcp", address)
	if err != nil {
		return "", err
	}
	return converse(c, text)
}

// dial connects from the pod, for a connection that stays.
func (p *pod) dial(address string) net.Conn {
	p.t.Helper()
	c, err := p.DialContext(context.Background(), "tcp", address)
	p.ok(err)
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

// inPods is a configuration in pod mode.
func inPods(cfg *xds.Config) {
	cfg.PodMode = true
	cfg.UpstreamMark = upstreamMark
	cfg.Address4, cfg.Address6 = netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
}

func targets(pods ...*pod) []model.PodTarget {
	var out []model.PodTarget
	for _, p := range pods {
		out = append(out, p.target)
	}
	return out
}
