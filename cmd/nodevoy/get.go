// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/ask"
)

func newGet() *cobra.Command {
	cfg := agent.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "get PATH",
		Short: "Print what this node's agent answers at a path of its debug endpoint",
		Long: "Print what this node's agent answers at a path of its debug endpoint, such as\n" +
			"/v1/summary or '/v1/flows?follow'. /v1/openapi.yaml describes all of them. The exit\n" +
			"code is 3 if no agent is running on this node.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{Err: errors.New("get takes one argument: a path, such as /v1/summary")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			socket := agent.DebugSocket(cfg.RunDir)
			body, err := ask.Socket("", socket).Open(cmd.Context(), args[0], nil)
			if err != nil {
				return explain(err, "the agent", socket)
			}
			_, err = io.Copy(cmd.OutOrStdout(), body)
			return errors.Join(err, body.Close())
		},
	}
	cmd.Flags().StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's sockets")
	return cmd
}
