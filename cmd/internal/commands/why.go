// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/why"
	"github.com/nodevoy/nodevoy/cmd/internal/columns"
)

// question is what is asked by why.
type question struct {
	from, to string
	flow     uint64
	live     bool
	timeout  time.Duration
}

func newWhy(s *Site) *cobra.Command {
	q := question{timeout: limit}
	cmd := &cobra.Command{
		Use:   "why [FROM TO | --from POD --to SERVICE:PORT | --flow ID]",
		Short: "Say where a pod's calls of a Service go, and why",
		Long: "Say where a pod's calls of a Service go, and why: in a sentence, and by the chain of what decides it.\n" +
			"The exit code is 0 if the calls go through Envoy, or are left alone as they should be; 4 if they fail, or\n" +
			"go past Envoy though they should not; 5 if it can't be told; and 3 if no agent answers.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return UsageError{errors.New("want both ends of the call: from which pod, to which Service and port")}
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return s.pods()(cmd, args, begun)
			}
			return s.services(true)(cmd, args, begun)
		},
	}
	o := addOutput(cmd)
	f := cmd.Flags()
	f.StringVar(&q.from, "from", "", "caller: NAMESPACE/POD, NAMESPACE/WORKLOAD or an IP address")
	f.StringVar(&q.to, "to", "", "what it calls: SERVICE:PORT, NAMESPACE/SERVICE:PORT or IP:PORT")
	f.Uint64Var(&q.flow, "flow", 0, "ask about the flow of this id, as `flows -o json` prints it")
	f.BoolVar(&q.live, "live", false, "also look at what the kernel and Envoy have now")
	f.DurationVar(&q.timeout, "timeout", q.timeout, "how long to wait for an agent")
	offer(cmd, "from", s.pods())
	offer(cmd, "to", s.services(true))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 {
			q.from, q.to = args[0], args[1]
		}
		return runWhy(cmd, s, o, q)
	}
	return cmd
}

func runWhy(cmd *cobra.Command, s *Site, o *output, q question) error {
	switch {
	case q.flow > 0 && (q.from != "" || q.to != ""):
		return UsageError{errors.New("--flow excludes --from and --to")}
	case q.flow == 0 && (q.from == "" || q.to == ""):
		return UsageError{errors.New("want --from and --to, or --flow")}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), q.timeout)
	defer cancel()
	callers, err := callersOf(ctx, s, q)
	if err != nil {
		return err
	}
	if more := len(callers) - maxCallers; more > 0 {
		say(cmd.ErrOrStderr(), "asking about the first %d of %d pods", maxCallers, len(callers))
		callers = callers[:maxCallers]
	}
	results := answersOf(ctx, callers, q)
	if len(results) == 1 && results[0].Err != nil {
		q.from = callers[0].From
		return alone(cmd, s, o, q, s.explain(results[0].Err))
	}
	if o.people() {
		err = printWhy(cmd.OutOrStdout(), callers, results)
	} else {
		err = encodeAll(cmd.OutOrStdout(), s, o, results)
	}
	if err != nil {
		return err
	}
	if err := settle(cmd.ErrOrStderr(), results); err != nil {
		return err
	}
	return verdict(results)
}

// alone prints what can be told without the agent's answer, and returns why there is none.
func alone(cmd *cobra.Command, s *Site, o *output, q question, err error) error {
	if s.Alone == nil || q.flow > 0 || ExitCode(err) != ExitNotRunning {
		return err
	}
	answer := s.Alone(cmd.Context(), q.from, q.to, err)
	if !o.people() {
		return errors.Join(o.encode(cmd.OutOrStdout(), answer), err)
	}
	return errors.Join(why.WriteText(cmd.OutOrStdout(), &answer), err)
}

// maxCallers bounds how many pods of one workload are asked about.
const maxCallers = 20

// answersOf asks about all callers at once.
func answersOf(ctx context.Context, callers []Caller, q question) []ask.Result[why.Answer] {
	results := make([]ask.Result[why.Answer], len(callers))
	var running sync.WaitGroup
	for i, c := range callers {
		running.Go(func() {
			results[i] = ask.All(ctx, []ask.Agent{c.Agent}, func(ctx context.Context, a ask.Agent) (answer why.Answer, err error) {
				err = a.Get(ctx, "/v1/why", q.query(c.From), &answer)
				return answer, err
			})[0]
		})
	}
	running.Wait()
	return results
}

// callersOf are the pods in question; a flow is that of one agent.
func callersOf(ctx context.Context, s *Site, q question) ([]Caller, error) {
	if q.flow == 0 {
		return s.Callers(ctx, q.from)
	}
	agents, err := s.Agents(ctx)
	if err != nil {
		return nil, err
	}
	if len(agents) != 1 {
		return nil, UsageError{fmt.Errorf("a flow's id is that of one node: choose it by --node, of %d", len(agents))}
	}
	return []Caller{{Agent: agents[0]}}, nil
}

func (q question) query(from string) url.Values {
	v := url.Values{}
	if q.flow > 0 {
		v.Set("flow", strconv.FormatUint(q.flow, 10))
	} else {
		v.Set("from", from)
		v.Set("to", q.to)
	}
	if q.live {
		v.Set("live", "true")
	}
	return v
}

// printWhy prints the first answer in full, and the others in a line each, as far as
// they say something else.
func printWhy(w io.Writer, callers []Caller, results []ask.Result[why.Answer]) error {
	full := false
	rest := columns.Table{Head: []string{"POD", "NODE", "CALLS", "WHY"}}
	for i, r := range results {
		if r.Answer == nil {
			rest.Add(columns.Row(callers[i].From, r.Node, string(r.State), r.Error)...)
			continue
		}
		if full {
			rest.Add(columns.Cell{Text: callers[i].From}, columns.Cell{Text: r.Node}, verdictCell(r.Answer.Verdict), columns.Cell{Text: r.Answer.Sentence})
			continue
		}
		full = true
		r.Answer.Apply(columns.Printable)
		var text strings.Builder
		if err := why.WriteText(&text, r.Answer); err != nil {
			return err
		}
		if _, err := io.WriteString(w, painted(text.String(), colors(w))); err != nil {
			return err
		}
	}
	if len(rest.Rows) == 0 {
		return nil
	}
	say(w, "\nOther pods of the same:")
	return rest.Write(w, colors(w))
}

// painted makes the sentence bold, and the state of what breaks red.
func painted(text string, colors bool) string {
	if !colors {
		return text
	}
	lines := strings.SplitAfter(text, "\n")
	lines[0] = columns.Paint(strings.TrimSuffix(lines[0], "\n"), columns.Bold, colors) + "\n"
	for i, line := range lines[1:] {
		for state, color := range map[why.State]columns.Color{why.OK: columns.Green, why.Broken: columns.Red, why.Unknown: columns.Yellow} {
			if rest, is := strings.CutPrefix(line, string(state)+" "); is {
				lines[i+1] = columns.Paint(string(state), color, colors) + " " + rest
			}
		}
	}
	return strings.Join(lines, "")
}

func verdictCell(v why.Verdict) columns.Cell {
	switch v {
	case why.Envoy:
		return columns.Of(string(v), columns.Green)
	case why.Fails:
		return columns.Of(string(v), columns.Red)
	case why.Bypassed, why.Unsure:
		return columns.Of(string(v), columns.Yellow)
	}
	return columns.Of(string(v), columns.Plain)
}

// verdict is an error if the calls of any pod don't do what they should.
func verdict(results []ask.Result[why.Answer]) error {
	var unsure error
	for _, r := range results {
		if r.Answer == nil {
			continue
		}
		err := fmt.Errorf("the verdict on calls from %s is %q", r.Answer.From.Asked, r.Answer.Verdict)
		switch r.Answer.Verdict {
		case why.Fails, why.Bypassed:
			return FailedError{err, ExitBroken}
		case why.Unsure:
			unsure = FailedError{err, ExitUnsure}
		}
	}
	return unsure
}
