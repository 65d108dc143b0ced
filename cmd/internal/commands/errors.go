// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/cmd/internal/columns"
)

// The exit codes.
const (
	// ExitFailed is for an error that has no code of its own, and for an answer that says
	// something is wrong.
	ExitFailed = 1
	// ExitUsage is for a flag, value or argument that can't be used.
	ExitUsage = 2
	// ExitNotRunning is for a question to an agent, or to Envoy, that isn't running or
	// doesn't answer.
	ExitNotRunning = 3
	// ExitBroken is for calls that go past Envoy though they should not, or fail, and
	// ExitUnsure for calls of which it can't be told: see why.
	ExitBroken = 4
	ExitUnsure = 5
)

// UsageError marks an error in what was asked for, not in doing it.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap is the error.
func (e UsageError) Unwrap() error { return e.Err }

// NotRunningError says that no process answers.
type NotRunningError struct{ Err error }

func (e NotRunningError) Error() string { return e.Err.Error() }

// Unwrap is the error.
func (e NotRunningError) Unwrap() error { return e.Err }

// FailedError says that what was asked about is not well, which has been printed.
type FailedError struct {
	Err error
	// Code is the exit code.
	Code int
}

func (e FailedError) Error() string { return e.Err.Error() }

// Unwrap is the error.
func (e FailedError) Unwrap() error { return e.Err }

// ExitCode is the one for an error.
func ExitCode(err error) int {
	status, failed := new(ask.StatusError), new(FailedError)
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(UsageError)):
		return ExitUsage
	case errors.As(err, failed):
		return failed.Code
	case errors.As(err, new(NotRunningError)), errors.Is(err, ask.ErrNotRunning):
		return ExitNotRunning
	case errors.As(err, &status) && status.Code == http.StatusBadRequest:
		return ExitUsage
	}
	return ExitFailed
}

// NoArgs refuses arguments that are not flags, as a usage error.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return UsageError{fmt.Errorf("unknown argument %q for %s (see %s --help)", args[0], cmd.CommandPath(), cmd.CommandPath())}
	}
	return nil
}

// note says what became of a node that has not answered.
func note(stderr io.Writer, node string, state ask.State, why string) {
	text := fmt.Sprintf("%s: %s", node, state)
	if state == ask.NoAnswer {
		text += ": " + columns.Printable(why)
	}
	fmt.Fprintln(stderr, text)
}

// unanswered is the error for nodes that have not answered, of which so many did.
func unanswered(silent []string, answered int) error {
	switch {
	case len(silent) > 0:
		return NotRunningError{fmt.Errorf("no answer from %s", strings.Join(silent, ", "))}
	case answered == 0:
		return NotRunningError{errors.New("no agent is running")}
	}
	return nil
}
