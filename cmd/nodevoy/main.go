// SPDX-License-Identifier: Apache-2.0

// Command nodevoy is the node agent and the tools around it: it redirects
// opted-in pods' Service traffic into the node's Envoy and keeps that Envoy
// configured.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/cmd/internal/commands"
)

// The exit codes.
const (
	exitFailed     = commands.ExitFailed
	exitUsage      = commands.ExitUsage
	exitNotRunning = commands.ExitNotRunning
	exitBroken     = commands.ExitBroken
	exitUnsure     = commands.ExitUnsure
)

// version is set by the linker (see the Makefile).
var version = "dev"

// usageError marks an error in what was asked for, not in doing it.
type usageError = commands.UsageError

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs the command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(stderr, "nodevoy:", err) // Standard error is the last resort.
	return commands.ExitCode(err)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "nodevoy",
		Short: "Request-level load balancing for Services by one Envoy per node",
		Long: "nodevoy redirects opted-in pods' outbound Service traffic into one Envoy per node\n" +
			"and keeps that Envoy configured with what this node uses.",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          commands.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{Err: fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	root.AddCommand(newAgent(), newBootstrap(), newGet(), newLogLevel(), newHealth(), newRender(), newCleanup(), newSelftest(), newDebugProxy())
	root.AddCommand(asking()...)
	return root
}
