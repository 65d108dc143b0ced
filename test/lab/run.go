// SPDX-License-Identifier: Apache-2.0

// Package lab is a lab of network namespaces: nodes on a LAN, pods on
// the nodes, a stand-in for kube-proxy, Envoy and the agent, all real. It runs
// in namespaces of its own from the first step, so it never touches the
// machine's network and ends, whole, with the program that uses it.
//
// A program (or TestMain) wraps itself in Main; inside, it makes a Lab with
// New, adds nodes, pods and Services, and calls Publish.
package lab

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/nodevoy/nodevoy/test/contain"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// netfilterEnv tells a lab of the machine's bridge-nf-call-iptables.
const netfilterEnv = "NODEVOY_LAB_BRIDGE_NETFILTER"

// Main runs body as process 1 of namespaces of its own and returns its exit code;
// of setup, Keep and Started are the caller's. Afterwards it makes sure that
// nothing is left on the machine.
//
// It is to be the first thing a program does: the lab's echo servers
// and clients are the same program too, which Main runs instead of body.
func Main(setup contain.Setup, body func() int) int {
	if len(os.Args) > 1 && os.Args[1] == echo.Command {
		return echo.Main(os.Args[2:])
	}
	setup.Processes = true
	setup.Env = append(setup.Env, netfilterEnv+"="+machineBridgeNetfilter(),
		// A program built with the race detector else takes a second to end, and
		// the clients of a lab are many.
		"GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	if !contain.Inside() {
		before := readMachine()
		setup.Ended = func(mark string) error { return readMachine().since(before, mark) }
	}
	return contain.Main(setup, func() int {
		for _, dir := range []string{"/run/netns", "/run/lock"} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				fmt.Fprintln(os.Stderr, "lab:", err)
				return 1
			}
		}
		return body()
	})
}

// machineBridgeNetfilter is the machine's net.bridge.bridge-nf-call-iptables:
// "0", "1", or empty where br_netfilter isn't loaded. A new network namespace
// has the kernel's default instead.
func machineBridgeNetfilter() string {
	text, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// BridgeNetfilter says whether bridged packets pass iptables on this machine,
// as kube-proxy needs it where pods are on a bridge.
func BridgeNetfilter() bool {
	on, err := strconv.ParseBool(os.Getenv(netfilterEnv))
	return err == nil && on
}
