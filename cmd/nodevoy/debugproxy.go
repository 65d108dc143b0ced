// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/cmd/internal/commands"
)

func newDebugProxy() *cobra.Command {
	cfg := agent.DefaultConfig()
	cmd := &cobra.Command{
		Use:    "debug-proxy",
		Short:  "Connect standard input and output with the agent's socket",
		Hidden: true,
		Args:   commands.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			socket := agent.DebugSocket(cfg.RunDir)
			conn, err := (&net.Dialer{}).DialContext(cmd.Context(), "unix", socket)
			if err != nil {
				return explain(err, "the agent", socket)
			}
			// Whoever started this knows by the greeting that it is connected.
			if _, err := io.WriteString(cmd.OutOrStdout(), ask.Greeting); err != nil {
				return errors.Join(err, conn.Close())
			}
			return join(cmd.Context(), conn, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's sockets")
	return cmd
}

// join copies both ways until the input or the connection ends. The input may be
// blocked for ever then: the process ends with the command.
func join(ctx context.Context, conn net.Conn, in io.Reader, out io.Writer) error {
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(conn, in)
		ended <- err
	}()
	go func() {
		_, err := io.Copy(out, conn)
		ended <- err
	}()
	var err error
	select {
	case <-ctx.Done():
	case err = <-ended:
	}
	if closing := conn.Close(); err == nil {
		err = closing
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("copy to and from the agent: %w", err)
	}
	return nil
}
