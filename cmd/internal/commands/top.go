// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/top"
	"github.com/nodevoy/nodevoy/cmd/internal/columns"
)

// topInterval is a bit more than the 5 s after which Envoy adds up its histograms: in less
// time there may be no latencies.
const topInterval = 6 * time.Second

func newTop(s *Site) *cobra.Command {
	interval, order, most := topInterval, string(top.ByRate), 20
	cmd := &cobra.Command{
		Use:   "top",
		Short: "List Services by rate, errors or latency of the calls of pods",
		Long: "List Services by rate, errors or latency of the calls of pods that are redirected. The agents' metrics\n" +
			"are read twice; nothing else is measured for it.",
		Args: NoArgs,
	}
	o := addOutput(cmd)
	f := cmd.Flags()
	f.DurationVar(&interval, "interval", interval, "time between the two looks; below 5s there may be no latencies")
	f.StringVar(&order, "sort", order, "sort by "+strings.Join(top.Orders(), ", "))
	f.IntVar(&most, "most", most, "list at most so many; 0 for all")
	complete(cmd, "sort", top.Orders()...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if interval <= 0 || most < 0 {
			return UsageError{errors.New("--interval has to be above 0, and --most not negative")}
		}
		if !strings.Contains(" "+strings.Join(top.Orders(), " ")+" ", " "+order+" ") {
			return UsageError{fmt.Errorf("--sort %q: want one of %s", order, strings.Join(top.Orders(), ", "))}
		}
		return runTop(cmd, s, o, topOptions{interval, top.Order(order), most})
	}
	return cmd
}

type topOptions struct {
	interval time.Duration
	order    top.Order
	most     int
}

// topAnswer is what is printed as JSON.
type topAnswer struct {
	// Nodes are those whose calls are counted, and what became of the others.
	Nodes    []ask.Result[struct{}] `json:"nodes"`
	Services []top.Row              `json:"services"`
}

func runTop(cmd *cobra.Command, s *Site, o *output, opt topOptions) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), opt.interval+limit)
	defer cancel()
	agents, err := s.Agents(ctx)
	if err != nil {
		return err
	}
	results := ask.All(ctx, agents, func(ctx context.Context, a ask.Agent) (top.Pair, error) { return twice(ctx, s, a, opt.interval) })
	if s.One && results[0].Err != nil {
		return s.explain(results[0].Err)
	}
	var pairs []top.Pair
	answer := topAnswer{}
	for _, r := range results {
		if r.Answer != nil {
			pairs = append(pairs, *r.Answer)
		}
		answer.Nodes = append(answer.Nodes, ask.Result[struct{}]{Node: r.Node, State: r.State, Error: r.Error})
	}
	answer.Services = []top.Row{}
	for _, row := range top.Rows(pairs, opt.order) {
		if ns := s.Namespace(); (ns == "" || ns == row.Namespace) && (opt.most == 0 || len(answer.Services) < opt.most) {
			answer.Services = append(answer.Services, row)
		}
	}
	if o.people() {
		err = printTop(cmd.OutOrStdout(), answer.Services)
	} else {
		err = o.encode(cmd.OutOrStdout(), answer)
	}
	if err != nil {
		return err
	}
	return settle(cmd.ErrOrStderr(), results)
}

// twice reads an agent's metrics now and after a while.
func twice(ctx context.Context, s *Site, a ask.Agent, interval time.Duration) (top.Pair, error) {
	before, err := sample(ctx, s, a)
	if err != nil {
		return top.Pair{}, err
	}
	wait := time.NewTimer(interval)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return top.Pair{}, ctx.Err()
	case <-wait.C:
	}
	after, err := sample(ctx, s, a)
	return top.Pair{Before: before, After: after}, err
}

func sample(ctx context.Context, s *Site, a ask.Agent) (_ top.Sample, err error) {
	body, err := a.Open(ctx, "/metrics", nil)
	if err != nil {
		return top.Sample{}, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	return top.Read(body, s.Now())
}

func printTop(w io.Writer, rows []top.Row) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "No calls were redirected in that time.")
		return err
	}
	t := columns.Table{Head: []string{"NAMESPACE", "SERVICE", "PORT", "REQ/S", "ERRORS", "P50", "P99", "CONN/S", "OPEN", "CALLERS"}}
	for _, r := range rows {
		failed := columns.Of(fmt.Sprintf("%.1f%%", 100*r.Errors), columns.Green)
		switch {
		case r.Requests == 0:
			failed = columns.Cell{}
		case r.Errors > 0.01:
			failed.Color = columns.Red
		case r.Errors > 0:
			failed.Color = columns.Yellow
		}
		row := append(columns.Row(r.Namespace, r.Service, r.Port, rate(r.Requests)), failed)
		t.Add(append(row, columns.Row(latency(r.P50), latency(r.P99), rate(r.Connections), fmt.Sprintf("%.0f", r.Open), strings.Join(r.Sources, ","))...)...)
	}
	return t.Write(w, colors(w))
}

func rate(perSecond float64) string {
	if perSecond == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", perSecond)
}

func latency(seconds *float64) string {
	if seconds == nil {
		return ""
	}
	d := time.Duration(*seconds * float64(time.Second))
	if d >= 10*time.Millisecond {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}
