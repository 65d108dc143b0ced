// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/why"
)

// Agent is a real agent on a node.
type Agent struct {
	*Process
	node *Node
}

// nodevoy makes the command line of a subcommand.
func nodevoy(subcommand string, flags ...string) ([]string, error) {
	path, err := binary(agentEnv, "make build")
	if err != nil {
		return nil, err
	}
	return append([]string{path, subcommand}, flags...), nil
}

// StartAgent starts an agent on the lab's objects, with these flags
// besides. It does not wait: see Redirecting.
func (n *Node) StartAgent(flags ...string) (*Agent, error) {
	return n.StartAgentOn(n.lab.ObjectsDir(), flags...)
}

// Flags are those that any agent and cleanup of the node needs: where its pods
// are.
func (n *Node) Flags() []string { return []string{"--netns-dir", n.NetnsDir()} }

// StartAgentOn is StartAgent with another directory of objects.
func (n *Node) StartAgentOn(objects string, flags ...string) (*Agent, error) {
	return n.startAgent(nil, objects, flags...)
}

// StartAgentBy is StartAgent by another program, like setpriv, that is given
// the agent's command line.
func (n *Node) StartAgentBy(by []string, flags ...string) (*Agent, error) {
	return n.startAgent(by, n.lab.ObjectsDir(), flags...)
}

func (n *Node) startAgent(by []string, objects string, flags ...string) (*Agent, error) {
	var own []string
	if !slices.Contains(flags, "--netns-dir") {
		own = n.Flags()
	}
	if mode := n.lab.options.Mode; mode != "" {
		own = append(own, "--redirect-mode", string(mode))
	}
	own = append(own, "--run-dir", n.RunDir(), "--host-dir", n.hostDir(), "--objects", objects, "--node-name", n.Name, "--envoy-group", EnvoyUser)
	argv, err := nodevoy("agent", append(own, flags...)...)
	if err != nil {
		return nil, err
	}
	p, err := n.Start("agent"+n.generation+".log", append(by, argv...)...)
	if err != nil {
		return nil, err
	}
	return &Agent{Process: p, node: n}, nil
}

// Nodevoy is what a command that asks the node's agent prints.
func (n *Node) Nodevoy(ctx context.Context, command string, flags ...string) (string, error) {
	argv, err := nodevoy(command, append([]string{"--run-dir", n.RunDir()}, flags...)...)
	if err != nil {
		return "", err
	}
	return n.Run(ctx, argv...)
}

// StatusText is what `nodevoy status` prints on the node.
func (n *Node) StatusText(ctx context.Context, flags ...string) (string, error) {
	return n.Nodevoy(ctx, "status", flags...)
}

// Status is what `nodevoy status -o json` prints, as far as tests use it.
type Status struct {
	Phase string
	// ObjectsRead and RedirectingSince are when that first, and last, was so.
	ObjectsRead, RedirectingSince time.Time
	Envoy                         struct {
		Connected  bool
		Unanswered int
		Nacks      int
	}
	// Frontends are those that Envoy uses.
	Frontends []struct{ Address, Class, Why string }
	// Memory is what Services in use take of Envoy's, and what is left for want of it.
	Memory struct {
		Used, Limit int64
		Left        map[string]int
	}
	Redirect struct {
		Mode, Mechanism      string
		Rules, DriftRepaired int
	}
}

// Why is the answer of `nodevoy why` on the node, and its exit code.
func (n *Node) Why(ctx context.Context, from, to string, flags ...string) (answer why.Answer, code int, err error) {
	argv, err := nodevoy("why", append([]string{"--run-dir", n.RunDir(), "--netns-dir", n.NetnsDir(), "--from", from, "--to", to, "-o", "json"}, flags...)...)
	if err != nil {
		return answer, 0, err
	}
	text, err := n.Run(ctx, argv...)
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		return answer, 0, err
	}
	if e := json.Unmarshal([]byte(text), &answer); e != nil {
		return answer, code, fmt.Errorf("parse the answer of why: %w: %w", e, err)
	}
	return answer, code, nil
}

// Status asks the node's agent for its status.
func (n *Node) Status(ctx context.Context) (Status, error) {
	var s Status
	text, err := n.StatusText(ctx, "-o", "json")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("parse status: %w", err)
	}
	return s, nil
}

// Cleanup runs `nodevoy cleanup` on the node and returns an error that names
// what is still there of nodevoy's afterwards.
func (n *Node) Cleanup(ctx context.Context) error {
	argv, err := nodevoy("cleanup", n.Flags()...)
	if err != nil {
		return err
	}
	if _, err := n.Run(ctx, argv...); err != nil {
		return err
	}
	left, err := n.Own(ctx)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind on %s after cleanup:\n  %s", n.Name, strings.Join(left, "\n  "))
	}
	return nil
}

// WaitRedirected waits until the pod is redirected and returns how long it
// took; an agent that ends meanwhile is an error with its log.
func (a *Agent) WaitRedirected(ctx context.Context, p *Pod) (time.Duration, error) {
	start := time.Now()
	if err := a.until(ctx, "redirection", func() error { return p.Redirected(ctx) }); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}
