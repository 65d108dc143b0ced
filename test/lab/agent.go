// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
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

// StartAgent starts an agent on the laboratory's objects, with these flags
// besides. It does not wait: see Redirecting.
func (n *Node) StartAgent(flags ...string) (*Agent, error) {
	return n.StartAgentOn(n.lab.ObjectsDir(), flags...)
}

// StartAgentOn is StartAgent with another directory of objects.
func (n *Node) StartAgentOn(objects string, flags ...string) (*Agent, error) {
	argv, err := nodevoy("agent", append([]string{"--run-dir", n.RunDir(), "--objects", objects, "--node-name", n.Name}, flags...)...)
	if err != nil {
		return nil, err
	}
	p, err := n.Start("agent.log", argv...)
	if err != nil {
		return nil, err
	}
	return &Agent{Process: p, node: n}, nil
}

// StatusText is what `nodevoy status` prints on the node.
func (n *Node) StatusText(ctx context.Context, flags ...string) (string, error) {
	argv, err := nodevoy("status", append([]string{"--run-dir", n.RunDir()}, flags...)...)
	if err != nil {
		return "", err
	}
	return n.Run(ctx, argv...)
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
	Redirect struct {
		Mechanism            string
		Rules, DriftRepaired int
	}
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
	argv, err := nodevoy("cleanup")
	if err != nil {
		return err
	}
	if _, err := n.Run(ctx, argv...); err != nil {
		return err
	}
	rules, err := n.OwnRules(ctx)
	if err != nil {
		return err
	}
	sets, err := n.OwnSets(ctx)
	if err != nil {
		return err
	}
	if left := slices.Concat(rules, sets); len(left) > 0 {
		return fmt.Errorf("left behind on %s after cleanup:\n  %s", n.Name, strings.Join(left, "\n  "))
	}
	return nil
}

// Redirected returns an error unless the kernel of the pod's node redirects
// the pod's connections: it asks the ipsets, not the agent.
func (p *Pod) Redirected(ctx context.Context) error {
	for _, ip := range p.IPs {
		if _, err := p.Node.Run(ctx, "ipset", "test", podSet(ip), ip.String()); err != nil {
			return fmt.Errorf("%s of pod %s is not redirected: %w", ip, p.Name, err)
		}
	}
	return nil
}

// NotRedirected returns an error when the kernel redirects the pod's
// connections.
func (p *Pod) NotRedirected(ctx context.Context) error {
	for _, ip := range p.IPs {
		if _, err := p.Node.Run(ctx, "ipset", "test", podSet(ip), ip.String()); err == nil {
			return fmt.Errorf("%s of pod %s is still redirected", ip, p.Name)
		}
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

// podSet is the ipset with the enrolled pods of an address's family.
func podSet(ip netip.Addr) string {
	if ip.Is4() {
		return "nodevoy-pods4"
	}
	return "nodevoy-pods6"
}

// OwnRules are the lines of iptables-save, of both backends and families, that
// bear our name, and those of `ip rule`; empty when nothing of ours is there.
func (n *Node) OwnRules(ctx context.Context) ([]string, error) {
	var lines []string
	commands := [][]string{
		{"iptables-nft-save"},
		{"ip6tables-nft-save"},
		{"iptables-legacy-save"},
		{"ip6tables-legacy-save"},
		{"ip", "-4", "rule"},
		{"ip", "-6", "rule"},
		{"ip", "addr", "show", "dev", "lo"},
	}
	for _, argv := range commands {
		out, err := n.Run(ctx, argv...)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if ours(line) {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	return lines, nil
}

// ours says whether a line of the kernel's state is nodevoy's: by name, or by
// the numbers of its policy route and its addresses.
func ours(line string) bool {
	for _, mark := range []string{"nodevoy", "NODEVOY", "lookup 1064", "169.254.64.15", "fd6e:6f64:6576:6f79:"} {
		if strings.Contains(line, mark) {
			return true
		}
	}
	return false
}

// OwnSets are the names of our ipsets on the node.
func (n *Node) OwnSets(ctx context.Context) ([]string, error) {
	out, err := n.Run(ctx, "ipset", "list", "-n")
	if err != nil {
		return nil, err
	}
	var sets []string
	for name := range strings.FieldsSeq(out) {
		if ours(name) {
			sets = append(sets, name)
		}
	}
	return sets, nil
}
