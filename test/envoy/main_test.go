// SPDX-License-Identifier: Apache-2.0

// Package envoy proves package xds against the real Envoy: that it accepts
// what is rendered, behaves as promised on demand, and changes nothing on the
// wire that it need not. The tests run in a network namespace of their own.
package envoy

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/test/contain"
)

// envoyVar holds the path of the Envoy to test with.
const envoyVar = "NODEVOY_ENVOY"

func TestMain(m *testing.M) {
	path := os.Getenv(envoyVar)
	if info, err := os.Stat(path); err != nil || info.IsDir() {
		fmt.Fprintf(os.Stderr, "%s=%q is not an Envoy binary: `make envoy` fetches one, `make test` sets the variable\n", envoyVar, path)
		os.Exit(1)
	}
	os.Exit(contain.Main(contain.Setup{User: os.Geteuid() != 0, Processes: true}, func() int {
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, "prepare the namespaces:", err)
			return 1
		}
		return m.Run()
	}))
}

// prepare makes the test's network: everything is on lo. Connections of this
// process to a frontend range go to the listener of its class, by the same
// kind of rule that a node has for its pods.
func prepare() error {
	commands := []string{
		"ip link set lo up",
		"ip addr add " + listen4 + "/32 dev lo scope host",
		"ip addr add " + listen6 + "/128 dev lo nodad",
		// Frontends, backends and strangers are all addresses of this machine.
		"ip route add local 10.0.0.0/8 dev lo",
		"ip -6 route add local fd00::/16 dev lo",
		// Where the pods of pod mode are. Without an address of its own the bridge has
		// the lowest of its ports', which changes when a pod comes: for seconds, all
		// others send to the one that they know.
		"ip link add " + bridge + " address 02:00:00:00:00:01 type bridge",
		"ip addr add " + gateway4 + "/16 dev " + bridge,
		"ip addr add " + gateway6 + "/64 dev " + bridge + " nodad",
		"ip link set " + bridge + " up",
	}
	for _, r := range ranges() {
		commands = append(commands,
			fmt.Sprintf("iptables -w -t nat -A OUTPUT -d %s -p tcp -j DNAT --to-destination %s:%d", r.v4, listen4, r.port),
			fmt.Sprintf("ip6tables -w -t nat -A OUTPUT -d %s -p tcp -j DNAT --to-destination [%s]:%d", r.v6, listen6, r.port))
	}
	// IPv6 lets nobody bind to an address that only a route says is local.
	if err := os.WriteFile("/proc/sys/net/ipv6/ip_nonlocal_bind", []byte("1"), 0o600); err != nil {
		return err
	}
	for _, c := range commands {
		if err := run(c); err != nil {
			return err
		}
	}
	return nil
}

func run(command string) error {
	args := strings.Fields(command)
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return nil
}
