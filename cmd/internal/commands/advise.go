// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/advise"
	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/debug/table"
	"github.com/nodevoy/nodevoy/cmd/internal/columns"
)

func newAdvise(s *Site) *cobra.Command {
	long := advise.Long
	cmd := &cobra.Command{
		Use:   "advise",
		Short: "Say what enrolling pods would change",
		Long: "Say what enrolling pods would change, by the connections that they have now and had lately: who is stuck\n" +
			"to one backend of a Service, which backends get how much, what ports would be taken for, and which pods a\n" +
			"label would enroll.",
		Args: NoArgs,
	}
	o := addOutput(cmd)
	cmd.Flags().DurationVar(&long, "long", long, "age from which a connection is long-lived")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		results, err := askAll(cmd.Context(), s, func(ctx context.Context, a ask.Agent) (answer advise.Advice, err error) {
			err = a.Get(ctx, "/v1/advise", url.Values{"long": {long.String()}}, &answer)
			return answer, err
		})
		if err != nil {
			return err
		}
		if !o.people() {
			err = encodeAll(cmd.OutOrStdout(), s, o, results)
		} else {
			err = printAdvice(cmd, s, results)
		}
		if err != nil {
			return err
		}
		return settle(cmd.ErrOrStderr(), results)
	}
	return cmd
}

// printAdvice prints that of one node after another: each is about that node's pods.
func printAdvice(cmd *cobra.Command, s *Site, results []ask.Result[advise.Advice]) error {
	out := cmd.OutOrStdout()
	for i, r := range results {
		if r.Answer == nil {
			continue
		}
		if !s.One {
			if i > 0 {
				say(out, "")
			}
			say(out, "%s", columns.Paint(columns.NodeHead+" "+r.Node, columns.Bold, colors(out)))
		}
		if err := table.Advice(out, r.Answer, s.Now()); err != nil {
			return err
		}
	}
	return nil
}
