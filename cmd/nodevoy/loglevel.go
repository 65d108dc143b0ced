// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/debug/table"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/cmd/internal/commands"
)

func newLogLevel() *cobra.Command {
	cfg := agent.DefaultConfig()
	to, reset, duration := view.SetLogLevel{}, false, 10*time.Minute
	cmd := &cobra.Command{
		Use:   "log-level",
		Short: "Show what this node's agent and Envoy log, or change it for a while",
		Long: "Show what this node's agent and Envoy log, or change it for a while. The exit code\n" +
			"is 3 if no agent is running on this node.",
		Args: commands.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			change := to.Agent != "" || to.Envoy != ""
			if change && reset {
				return usageError{Err: errors.New("--reset and a level exclude each other")}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
			defer cancel()
			socket := agent.DebugSocket(cfg.RunDir)
			asked, now, err := ask.Socket("", socket), view.LogLevel{}, error(nil)
			switch to.For = view.Duration(duration); {
			case reset:
				now, err = asked.SetLogLevel(ctx, nil)
			case change:
				now, err = asked.SetLogLevel(ctx, &to)
			default:
				err = asked.Get(ctx, "/v1/log-level", nil, &now)
			}
			if err != nil {
				return explain(err, "the agent", socket)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), table.LogLevel(now, time.Now()))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's sockets")
	f.StringVar(&to.Agent, "agent", to.Agent, "level of the agent: debug, info, warn or error")
	f.StringVar(&to.Envoy, "envoy", to.Envoy, "level of Envoy: trace, debug, info, warning, error, critical or off")
	f.DurationVar(&duration, "for", duration, "for how long, an hour at most")
	f.BoolVar(&reset, "reset", reset, "change both back")
	return cmd
}
