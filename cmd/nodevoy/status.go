// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/debug/client"
	"github.com/nodevoy/nodevoy/agent/debug/table"
)

func newStatus() *cobra.Command {
	cfg := agent.DefaultConfig()
	output, all := "table", false
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what this node's agent redirects, and why",
		Long: "Show what this node's agent redirects, and why. The exit code is 3 if no agent\n" +
			"is running on this node.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usageError{fmt.Errorf("-o %q: want table or json", output)}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
			defer cancel()
			socket := agent.DebugSocket(cfg.RunDir)
			v, err := client.New(socket).Status(ctx, all)
			if err != nil {
				return explain(err, "the agent", socket)
			}
			if output == "table" {
				return table.Status(cmd.OutOrStdout(), &v, time.Now())
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(v)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's sockets")
	f.StringVarP(&output, "output", "o", output, "output format: table or json")
	f.BoolVar(&all, "all", all, "list all frontends, not only those in use")
	return cmd
}

// notRunningError says that no process answers at a socket.
type notRunningError struct{ error }

func (e notRunningError) Unwrap() error { return e.error }

// explain says in words why a request to who, at this unix socket, failed.
func explain(err error, who, socket string) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return notRunningError{fmt.Errorf("%s is not running on this node: nothing listens on %s", who, socket)}
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("no permission to connect to %s: run as the user that runs %s, usually root", socket, who)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%s does not answer on %s: %w", who, socket, err)
	}
	return err
}
