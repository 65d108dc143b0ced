// SPDX-License-Identifier: Apache-2.0

// Package space gives tests network namespaces of their own, with the real
// kernel in them. A test binary that calls Main runs again in new user, network
// and mount namespaces, as root there, whoever runs it; every test then begins
// with New, and nothing it does is seen by the machine or by another test.
package space

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/test/contain"
)

// Main runs the tests in new namespaces and returns the exit code.
func Main(m *testing.M) int {
	if !contain.Inside() {
		if missing := missingTools(); len(missing) > 0 {
			fmt.Fprintf(os.Stderr, "not installed: %s (apt install iptables ipset iproute2 nftables)\n", strings.Join(missing, ", "))
			return 1
		}
	}
	return contain.Main(contain.Setup{User: true}, func() int {
		// The first thread stays out of tests: it never ends, and the process is
		// said to be in whatever namespace it was last moved to.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		return m.Run()
	})
}

func missingTools() []string {
	var missing []string
	for _, tool := range []string{"iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy", "ipset", "ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	return missing
}

// Node is the network namespace that stands for a node's own.
type Node struct {
	t  testing.TB
	ns netns.NsHandle
	nl *netlink.Handle
	// pods counts them, for names of interfaces.
	pods int
}

// New puts the calling test's goroutine into a new network namespace, until the
// goroutine ends. Whatever the test opens or starts from that goroutine, and not
// from another, is in it.
func New(t testing.TB) *Node {
	t.Helper()
	// Never unlocked: the thread ends with the test.
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	n := &Node{t: t, ns: ns}
	if n.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = n.nl.Close()
		_ = ns.Close()
	})
	n.up("lo")
	for _, s := range []string{
		"net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1", "net/ipv4/conf/all/rp_filter=1", "net/ipv6/conf/default/accept_dad=0",
		// Refusals by ICMP at once, however many there are.
		"net/ipv4/icmp_ratelimit=0", "net/ipv6/icmp/ratelimit=0",
	} {
		n.Sysctl(s)
	}
	n.uplink()
	return n
}

// uplink gives the node an address and a way out, where nobody answers: without
// a route to a Service's address nobody could dial it.
func (n *Node) uplink() {
	n.t.Helper()
	n.ok(n.nl.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "uplink"}, PeerName: "outside"}))
	n.up("uplink")
	n.up("outside")
	for prefix, gateway := range map[string]string{"192.0.2.2/24": "192.0.2.1", "2001:db8::2/64": "2001:db8::1"} {
		n.address(n.nl, "uplink", prefix)
		n.ok(n.nl.RouteAdd(&netlink.Route{Gw: net.ParseIP(gateway)}))
	}
}

// Go runs fn on another goroutine in the node's network namespace.
func (n *Node) Go(fn func()) {
	ready := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(n.ns)
		ready <- err
		if err == nil {
			fn()
		}
	}()
	if err := <-ready; err != nil {
		n.t.Fatal(err)
	}
}

// Sysctl writes "net/name=value".
func (n *Node) Sysctl(setting string) {
	n.t.Helper()
	name, value, _ := strings.Cut(setting, "=")
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o600); err != nil {
		n.t.Fatalf("set %s: %v", setting, err)
	}
}

// Run runs a command on the node and returns its standard output. A failure
// ends the test.
func (n *Node) Run(command string) string {
	n.t.Helper()
	return n.Feed(command, "")
}

// Feed is Run with a standard input.
func (n *Node) Feed(command, input string) string {
	n.t.Helper()
	out, err := run(command, input)
	n.ok(err)
	return out
}

// run runs a command in the calling thread's network namespace.
func run(command, input string) (string, error) {
	words := strings.Fields(command)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s%s", command, err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

func (n *Node) up(link string) {
	n.t.Helper()
	l, err := n.nl.LinkByName(link)
	if err == nil {
		err = n.nl.LinkSetUp(l)
	}
	if err != nil {
		n.t.Fatalf("set %s up: %v", link, err)
	}
}

// Until waits for check to return nil, and ends the test when it doesn't in time.
func Until(t testing.TB, limit time.Duration, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %s for %s: %v", limit, what, err)
		}
	}
}
