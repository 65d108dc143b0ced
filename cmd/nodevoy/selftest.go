// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/selftest"
	"github.com/nodevoy/nodevoy/cmd/internal/commands"
)

// newSelftest is hidden: `helm test` runs it, in pods of its own.
func newSelftest() *cobra.Command {
	cmd := &cobra.Command{
		Use:    "selftest",
		Short:  "Prove from inside a pod that its calls are redirected",
		Hidden: true,
		Args:   commands.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSelftestServer(), newSelftestClient())
	return cmd
}

func newSelftestServer() *cobra.Command {
	address := ":8080"
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Answer with this pod's name and the caller's address until told to stop",
		Args:  commands.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := os.Hostname()
			if err != nil {
				return fmt.Errorf("find this pod's name: %w", err)
			}
			ln, err := (&net.ListenConfig{}).Listen(cmd.Context(), "tcp", address)
			if err != nil {
				return fmt.Errorf("listen for the self-test: %w", err)
			}
			return selftest.Serve(cmd.Context(), ln, name)
		},
	}
	cmd.Flags().StringVar(&address, "address", address, "host:port to listen on")
	return cmd
}

func newSelftestClient() *cobra.Command {
	client := selftest.Client{Requests: 20, Backends: 2, Pause: time.Second}
	timeout := 2 * time.Minute
	cmd := &cobra.Command{
		Use:   "client",
		Short: "Succeed once the requests of one connection were answered by several backends",
		Args:  commands.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := client.Validate(); err != nil {
				return usageError{Err: err}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return client.Run(ctx, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&client.URL, "url", client.URL, "Service to call: http://NAME/")
	f.IntVar(&client.Requests, "requests", client.Requests, "requests to send over one connection")
	f.IntVar(&client.Backends, "backends", client.Backends, "how many different backends have to answer")
	f.DurationVar(&client.Pause, "pause", client.Pause, "time between two attempts")
	f.DurationVar(&timeout, "timeout", timeout, "when to give up")
	return cmd
}
