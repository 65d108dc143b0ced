// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/flow"
)

// nodeFlow is a flow and the node that tells of it.
type nodeFlow struct {
	OnNode string `json:"onNode,omitempty"`
	flow.Flow
}

// flowOptions are the flags of flows.
type flowOptions struct {
	filter flow.Filter
	status []string
	origin string
	last   int
	follow bool
}

func newFlows(s *Site) *cobra.Command {
	opt := flowOptions{last: 20}
	cmd := &cobra.Command{
		Use:   "flows",
		Short: "List the last requests and connections of pods, or follow them",
		Long: "List the last requests and connections of pods, or follow them with -f. With -o json, each is\n" +
			"one line. How many were lost is said on standard error.",
		Args: NoArgs,
	}
	o := &output{format: asTable, formats: []string{asTable, asWide, asJSON}}
	f := cmd.Flags()
	f.VarP(o, "output", "o", "output format: table, wide, json (one object a line)")
	f.BoolVarP(&opt.follow, "follow", "f", false, "go on with new ones until interrupted")
	f.IntVar(&opt.last, "last", opt.last, "how many of the last ones are listed, of each node")
	f.StringSliceVar(&opt.status, "status", nil, "HTTP status, such as 404, or class, such as 5xx; may be given several times")
	f.BoolVar(&opt.filter.Failed, "failed", false, "only those that failed")
	f.StringVar(&opt.filter.From, "from", "", "caller: [NAMESPACE/]POD, [NAMESPACE/]WORKLOAD, or an address")
	f.StringVar(&opt.filter.To, "to", "", "what was called: [NAMESPACE/]SERVICE, NAMESPACE/SERVICE/PORT, [NAMESPACE/]POD of a backend, or an address")
	f.DurationVar(&opt.filter.Slower, "slower", 0, "only those that took longer, such as 100ms")
	f.StringVar(&opt.filter.Protocol, "protocol", "", "protocol, such as HTTP/1.1, HTTP/2, gRPC, TLS, TCP")
	f.StringVar(&opt.origin, "origin", "", "who saw it: envoy, or kernel for what is not redirected")
	complete(cmd, "output", o.formats...)
	complete(cmd, "origin", string(flow.OriginEnvoy), string(flow.OriginKernel))
	complete(cmd, "protocol", "HTTP/1.0", "HTTP/1.1", "HTTP/2", "gRPC", "TLS", "TCP", "UDP")
	complete(cmd, "status", "2xx", "3xx", "4xx", "5xx")
	offer(cmd, "from", s.pods())
	offer(cmd, "to", s.services(false))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		query, err := opt.query(s.Namespace())
		if err != nil {
			return UsageError{err}
		}
		p := &flowPrinter{w: cmd.OutOrStdout(), json: o.format == asJSON, wide: o.format == asWide, nodes: !s.One, colors: colors(cmd.OutOrStdout())}
		if opt.follow {
			return followFlows(cmd, s, query, p)
		}
		return lastFlows(cmd, s, query, opt.last, p)
	}
	return cmd
}

// query is that of /v1/flows. A name without a namespace is in the one given.
func (o *flowOptions) query(namespace string) (url.Values, error) {
	f := o.filter
	f.Status, f.Origin = o.status, flow.Origin(o.origin)
	f.Namespace = namespace
	for _, name := range []*string{&f.From, &f.To} {
		if *name = qualified(*name, namespace); *name != "" && !strings.ContainsAny(*name, "/.:") {
			return nil, fmt.Errorf("%q has no namespace: write NAMESPACE/%s, or use --namespace", *name, *name)
		}
	}
	v := f.Values()
	if _, err := flow.ParseFilter(v); err != nil {
		return nil, err
	}
	if o.last < 0 {
		return nil, fmt.Errorf("--last %d is negative", o.last)
	}
	v.Set("last", strconv.Itoa(o.last))
	return v, nil
}

// qualified is a name as flows have it: with its namespace, if one was given and it has
// none, and without a kind, as in svc/api.
func qualified(name, namespace string) string {
	parts := strings.Split(name, "/")
	if kind := len(parts) - 2; kind >= 0 && slices.Contains(kinds(), parts[kind]) {
		name = strings.Join(slices.Delete(parts, kind, kind+1), "/")
	}
	if name == "" || namespace == "" || strings.ContainsAny(name, "/.:") {
		return name
	}
	return namespace + "/" + name
}

// kinds are the words that may stand before a name.
func kinds() []string {
	return []string{
		"pod", "pods", "po", "deployment", "deployments", "deploy", "statefulset", "statefulsets", "sts",
		"daemonset", "daemonsets", "ds", "job", "jobs", "service", "services", "svc",
	}
}

// lastFlows prints the last ones of all nodes in the order of their time.
func lastFlows(cmd *cobra.Command, s *Site, query url.Values, last int, p *flowPrinter) error {
	results, err := askAll(cmd.Context(), s, func(ctx context.Context, a ask.Agent) (flows view.Flows, err error) {
		err = a.Get(ctx, "/v1/flows", query, &flows)
		return flows, err
	})
	if err != nil {
		return err
	}
	var all []nodeFlow
	lost := uint64(0)
	for _, r := range results {
		if r.Answer == nil {
			continue
		}
		for _, one := range r.Answer.Items {
			all = append(all, nodeFlow{p.node(r.Node), one})
		}
		lost += r.Answer.Lost[flow.LossSampled]
	}
	slices.SortStableFunc(all, func(a, b nodeFlow) int { return a.Time.Compare(b.Time) })
	if err := p.print(all[max(0, len(all)-last):]); err != nil {
		return err
	}
	sayLost(cmd.ErrOrStderr(), lost)
	return settle(cmd.ErrOrStderr(), results)
}

func sayLost(w io.Writer, lost uint64) {
	if lost > 0 {
		say(w, "%d flows are not listed: there were too many at a time", lost)
	}
}

// followFlows prints the flows of all nodes as they come, until ctx ends.
func followFlows(cmd *cobra.Command, s *Site, query url.Values, p *flowPrinter) error {
	ctx := cmd.Context()
	agents, err := s.Agents(ctx)
	if err != nil {
		return err
	}
	query.Set("follow", "true")
	lost := &losses{of: map[string]uint64{}}
	results := ask.All(ctx, agents, func(ctx context.Context, a ask.Agent) (struct{}, error) {
		err := a.Follow(ctx, "/v1/flows", query, func(e ask.Event) error { return take(e, a.Node, p, lost) })
		// What ends it is said when it does: the others go on.
		if err != nil && !s.One && !errors.Is(err, errOutput) {
			lost.note(cmd.ErrOrStderr(), a.Node, err)
		}
		return struct{}{}, err
	})
	sayLost(cmd.ErrOrStderr(), lost.sum())
	if s.One && results[0].Err != nil {
		return s.explain(results[0].Err)
	}
	return settle(io.Discard, results)
}

// errOutput says that what was printed could not be written.
var errOutput = errors.New("write the output")

// take prints a flow, or notes how many were lost.
func take(e ask.Event, node string, p *flowPrinter, lost *losses) error {
	if e.Name == "lost" {
		var v view.Lost
		if err := json.Unmarshal(e.Data, &v); err != nil {
			return fmt.Errorf("read how many flows were lost: %w", err)
		}
		lost.set(node, v.Lost)
		return nil
	}
	var one flow.Flow
	if err := json.Unmarshal(e.Data, &one); err != nil {
		return fmt.Errorf("read a flow: %w", err)
	}
	if err := p.print([]nodeFlow{{p.node(node), one}}); err != nil {
		return fmt.Errorf("%w: %w", errOutput, err)
	}
	return nil
}

// losses are how many flows were lost on each node since the streams began, and keep
// what is said of several streams apart.
type losses struct {
	mu sync.Mutex
	of map[string]uint64
}

func (l *losses) set(node string, n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of[node] = n
}

// note says what ended a node's stream.
func (l *losses) note(stderr io.Writer, node string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	state := ask.NoAnswer
	if errors.Is(err, ask.ErrNotRunning) {
		state = ask.NotRunning
	}
	note(stderr, node, state, err.Error())
}

func (l *losses) sum() (sum uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.of {
		sum += n
	}
	return sum
}

// millis is a duration for a column, short and of three digits or so.
func millis(m flow.Millis) string {
	d := time.Duration(m)
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
