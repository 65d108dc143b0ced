// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/debug"
)

func newHealth() *cobra.Command {
	cfg := agent.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "health ready|live",
		Short: "Exit with 0 if this node redirects (ready) or nothing is stuck (live), for probes",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || (args[0] != "ready" && args[0] != "live") {
				return usageError{errors.New("health wants one word, ready or live")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			v, err := debug.Fetch(ctx, agent.DebugSocket(cfg.RunDir), false)
			if err != nil {
				return err
			}
			problem := v.NotReady
			if args[0] == "live" {
				problem = v.Stuck
			}
			if problem != "" {
				return errors.New(problem)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "ok")
			return err
		},
	}
	cmd.Flags().StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's sockets")
	return cmd
}
