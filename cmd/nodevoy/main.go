// SPDX-License-Identifier: Apache-2.0

// Command nodevoy is the node agent and the tools around it: it redirects
// opted-in pods' Service traffic into the node's Envoy and keeps that Envoy
// configured.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitFailed = 1
	// exitUsage is for a flag or value that can't be used.
	exitUsage = 2
	// exitNotRunning is for a question to an agent, or to Envoy, that isn't running.
	exitNotRunning = 3
	// exitBroken is for calls that go past Envoy though they should not, or fail, and
	// exitUnsure for a question that can't be answered: see why.
	exitBroken = 4
	exitUnsure = 5
)

// version is set by the linker (see the Makefile).
var version = "dev"

// usageError marks an error in what was asked for, not in doing it.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

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
	if usage := new(usageError); errors.As(err, usage) {
		return exitUsage
	}
	if down := new(notRunningError); errors.As(err, down) {
		return exitNotRunning
	}
	if broken := new(brokenError); errors.As(err, broken) {
		return exitBroken
	}
	if unsure := new(unsureError); errors.As(err, unsure) {
		return exitUnsure
	}
	return exitFailed
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
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	root.AddCommand(newAgent(), newBootstrap(), newStatus(), newWhy(), newAdvise(), newGet(), newLogLevel(), newHealth(), newRender(), newCleanup(), newSelftest())
	return root
}

// noArgs refuses arguments that are not flags, as a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown argument %q for %s (see %s --help)", args[0], cmd.CommandPath(), cmd.CommandPath())}
	}
	return nil
}
