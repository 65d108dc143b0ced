// SPDX-License-Identifier: Apache-2.0

// Package examine gathers the facts that package check judges: from the kernel, from the
// node's agent and Envoy where they run, and else from the probe that an agent would
// begin with. It leaves nothing behind on the node.
package examine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/check"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/healthcheck"
	"github.com/nodevoy/nodevoy/redirect/probe"
)

const (
	// askTimeout bounds a question to the agent or Envoy, probeTimeout the probe.
	askTimeout   = 5 * time.Second
	probeTimeout = 20 * time.Second
)

// Gather looks at the node on which it runs. cfg is that of the agent that runs, or
// might.
func Gather(ctx context.Context, cfg agent.Config, version string) *check.Facts {
	f := &check.Facts{Version: version, Kernel: release(), Capabilities: capabilities(), Clock: clock()}
	short, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	of := ask.Socket(cfg.NodeName, agent.DebugSocket(cfg.RunDir))
	defer of.Close()
	status, err := of.Status(short, false)
	switch {
	case errors.Is(err, ask.ErrNotRunning):
		f.Probe, f.Ports = tryProbe(ctx, cfg), taken(ctx, cfg)
	case err != nil:
		f.AgentError = err.Error()
	default:
		f.Agent = &check.Agent{View: status}
		if err := healthcheck.Check(short, cfg.RunDir, healthcheck.Envoy); err != nil {
			f.Agent.EnvoyError = err.Error()
		}
		f.Agent.Metrics, f.Agent.MetricsError = metrics(short, of)
	}
	return f
}

// metrics is where the agent serves metrics, by its own word, and why it doesn't.
func metrics(ctx context.Context, of ask.Agent) (address, problem string) {
	var cfg view.Config
	if err := of.Get(ctx, "/v1/config", nil, &cfg); err != nil {
		return "", ""
	}
	for _, flag := range cfg.Flags {
		if flag.Name == "metrics-address" {
			address = flag.Value
		}
	}
	if address == "" {
		return "", ""
	}
	served := ask.New("", func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	})
	defer served.Close()
	body, err := served.Open(ctx, "/metrics", nil)
	if err != nil {
		return address, err.Error()
	}
	_ = body.Close() // That it begins is enough.
	return address, ""
}

// tryProbe does what an agent would do first.
func tryProbe(ctx context.Context, cfg agent.Config) *check.Probe {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	found, err := probe.Run(ctx, cfg.Redirect, cfg.Netns, zap.NewNop())
	p := &check.Probe{Reasons: found.Reasons}
	if err == nil {
		p.Mode, p.Mechanism, p.Backend = found.Mode.String(), found.Mechanism.String(), found.Backend.String()
		return p
	}
	if p.Missing = requirements(err); len(p.Missing) == 0 || errors.Is(err, probe.ErrUnknown) {
		p.Missing, p.Error = nil, err.Error()
	}
	return p
}

// requirements are all that an error of the probe is made of.
func requirements(err error) []check.Requirement {
	switch e := err.(type) { //nolint:errorlint // All errors of the tree are looked at, one by one.
	case *probe.MissingRequirement:
		what := e.What
		if e.Err != nil {
			what += ": " + strings.ReplaceAll(e.Err.Error(), "\n", "; ")
		}
		return []check.Requirement{{What: what, Remedy: e.Remedy}}
	case interface{ Unwrap() []error }:
		var all []check.Requirement
		for _, one := range e.Unwrap() {
			all = append(all, requirements(one)...)
		}
		return all
	case interface{ Unwrap() error }:
		return requirements(e.Unwrap())
	}
	return nil
}

// taken are the ports of the node that an agent wants and somebody else has.
func taken(ctx context.Context, cfg agent.Config) []string {
	addresses := []string{cfg.MetricsAddress}
	for _, port := range cfg.Redirect.Ports.All() {
		addresses = append(addresses, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	}
	var out []string
	for _, address := range addresses {
		if address == "" {
			continue
		}
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err == nil {
			_ = ln.Close() // Nothing was served on it.
		} else if errors.Is(err, syscall.EADDRINUSE) {
			out = append(out, address)
		}
	}
	return out
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "of unknown release"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// clock asks the kernel whether something keeps its clock right (adjtimex(2)).
func clock() check.Clock {
	state, err := unix.Adjtimex(&unix.Timex{})
	return check.Clock{Known: err == nil, Synchronized: err == nil && state != unix.TIME_ERROR}
}

// capabilities are the effective ones of this process, of those that nodevoy uses.
func capabilities() []string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	return ofStatus(string(text))
}

// ofStatus reads the line CapEff of /proc/PID/status.
func ofStatus(text string) []string {
	names := map[string]uint{"NET_ADMIN": unix.CAP_NET_ADMIN, "NET_RAW": unix.CAP_NET_RAW, "SYS_ADMIN": unix.CAP_SYS_ADMIN, "SYS_PTRACE": unix.CAP_SYS_PTRACE}
	var out []string
	for line := range strings.Lines(text) {
		var set uint64
		if _, err := fmt.Sscanf(line, "CapEff: %x", &set); err != nil {
			continue
		}
		for name, bit := range names {
			if set&(1<<bit) != 0 {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}
