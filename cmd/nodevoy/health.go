// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/healthcheck"
)

func newHealth() *cobra.Command {
	cfg := agent.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "health live|ready|envoy",
		Short: "Check the health of this node's agent or Envoy",
		Long: "Check the health of this node's agent or Envoy, and exit with 0 if the check passes:\n\n" +
			"  live   the agent is running and not stuck\n" +
			"  ready  this node redirects\n" +
			"  envoy  Envoy serves connections; the agent need not be running",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !healthcheck.Known(args[0]) {
				return usageError{Err: errors.New("health takes one argument: live, ready or envoy")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			err := healthcheck.Check(ctx, cfg.RunDir, args[0])
			if err != nil && args[0] == healthcheck.Envoy {
				return explain(err, "Envoy", filepath.Join(cfg.RunDir, healthcheck.EnvoySocket))
			}
			if err != nil {
				return explain(err, "the agent", agent.DebugSocket(cfg.RunDir))
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "ok")
			return err
		},
	}
	cmd.Flags().StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's and Envoy's sockets")
	return cmd
}
