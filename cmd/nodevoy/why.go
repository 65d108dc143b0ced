// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/debug/client"
	"github.com/nodevoy/nodevoy/agent/why"
)

func newWhy() *cobra.Command {
	cfg := agent.DefaultConfig()
	output, timeout := "text", 10*time.Second
	var q why.Question
	var flow string
	var live bool
	cmd := &cobra.Command{
		Use:   "why --from POD --to SERVICE:PORT",
		Short: "Say where a pod's calls of a Service go, and why",
		Long: "Say where a pod's calls of a Service go, and why: in one sentence, and by the chain\n" +
			"of what decides it.\n\n" +
			"The exit code is 0 if they go through Envoy, or are left alone as somebody said; 4 if\n" +
			"they go past Envoy though they should not, or fail; 5 if it can't be told; and 3 if no\n" +
			"agent answers on this node. Then it says what the kernel still redirects.",
		Example: "  nodevoy why --from shop/web --to api:80\n" +
			"  nodevoy why --from 10.244.1.7 --to 10.96.0.10:80 --live",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkWhy(q, flow, output); err != nil {
				return usageError{err}
			}
			answer, err := askWhy(cmd.Context(), cfg, q, whyQuery(q, flow, live), timeout)
			if invalid := new(client.InvalidError); errors.As(err, invalid) {
				return usageError{err}
			}
			down := new(notRunningError)
			if err != nil && !errors.As(err, down) {
				return err
			}
			if e := writeWhy(cmd.OutOrStdout(), &answer, output); e != nil {
				return e
			}
			if err != nil {
				return err
			}
			return verdictError(answer.Verdict)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.From, "from", q.From, "who calls: namespace/pod, namespace/workload, or an IP address")
	f.StringVar(&q.To, "to", q.To, "what is called: SERVICE:PORT, where SERVICE is a name in the caller's namespace, namespace/name, or name.namespace.svc, and PORT a name or a number; or IP:PORT")
	f.StringVar(&flow, "flow", flow, "the number of a flow, instead of --from and --to")
	f.BoolVar(&live, "live", live, "also look at what the kernel and Envoy have now")
	f.StringVarP(&output, "output", "o", output, "output format: text, json or yaml")
	f.DurationVar(&timeout, "timeout", timeout, "how long to wait for the agent")
	f.StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's sockets")
	netnsFlags(f, &cfg)
	return cmd
}

// checkWhy says what is wrong with the flags.
func checkWhy(q why.Question, flow, output string) error {
	switch {
	case output != "text" && output != "json" && output != "yaml":
		return fmt.Errorf("-o %q: want text, json or yaml", output)
	case flow != "" && (q.From != "" || q.To != ""):
		return errors.New("--flow excludes --from and --to")
	case flow == "" && (q.From == "" || q.To == ""):
		return errors.New("--from and --to, or --flow, are required")
	}
	return nil
}

// whyQuery are the question's values for /v1/why.
func whyQuery(q why.Question, flow string, live bool) url.Values {
	values := url.Values{}
	if flow == "" {
		values.Set("from", q.From)
		values.Set("to", q.To)
	} else {
		values.Set("flow", flow)
	}
	if live {
		values.Set("live", "true")
	}
	return values
}

// askWhy asks the agent. If none answers, the error is a notRunningError, and the answer
// what can be told without.
func askWhy(ctx context.Context, cfg agent.Config, q why.Question, values url.Values, timeout time.Duration) (why.Answer, error) {
	asking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	socket := agent.DebugSocket(cfg.RunDir)
	var answer why.Answer
	err := client.New(socket).Get(asking, "/v1/why", values, &answer)
	if err == nil {
		return answer, nil
	}
	late := asking.Err() != nil && ctx.Err() == nil
	err = explain(err, "the agent", socket)
	if down := new(notRunningError); !errors.As(err, down) && !late {
		return answer, err
	}
	return agent.Alone(ctx, cfg, q, err), notRunningError{err}
}

func writeWhy(w io.Writer, answer *why.Answer, output string) error {
	switch output {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(answer)
	case "yaml":
		text, err := yaml.Marshal(answer)
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	}
	return why.WriteText(w, answer)
}

// brokenError and unsureError are verdicts that have exit codes of their own; what is to
// be said of them is on standard output.
type (
	brokenError struct{ error }
	unsureError struct{ error }
)

func verdictError(v why.Verdict) error {
	switch v {
	case why.Bypassed, why.Fails:
		return brokenError{fmt.Errorf("verdict: %s", v)}
	case why.Unsure:
		return unsureError{fmt.Errorf("verdict: %s", v)}
	}
	return nil
}
