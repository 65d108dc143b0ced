// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/advise"
	"github.com/nodevoy/nodevoy/agent/debug/client"
	"github.com/nodevoy/nodevoy/agent/debug/table"
)

func newAdvise() *cobra.Command {
	cfg := agent.DefaultConfig()
	output, long := "table", advise.Long
	cmd := &cobra.Command{
		Use:   "advise",
		Short: "Say what enrolling this node's pods would change",
		Long: "Say what enrolling this node's pods would change, by the connections that they\n" +
			"have now and had lately: who is stuck to one backend of a Service, which backends\n" +
			"get how much, what ports would be taken for, and which pods a label would enroll.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usageError{fmt.Errorf("-o %q: want table or json", output)}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 20*time.Second)
			defer cancel()
			socket := agent.DebugSocket(cfg.RunDir)
			var a advise.Advice
			if err := client.New(socket).Get(ctx, "/v1/advise", url.Values{"long": {long.String()}}, &a); err != nil {
				return explain(err, "the agent", socket)
			}
			if output == "table" {
				return table.Advice(cmd.OutOrStdout(), &a, time.Now())
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(a)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's sockets")
	f.StringVarP(&output, "output", "o", output, "output format: table or json")
	f.DurationVar(&long, "long", long, "age from which a connection is long-lived")
	return cmd
}
