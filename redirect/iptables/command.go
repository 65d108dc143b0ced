// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

const (
	// waitSeconds bounds the wait for the lock that legacy commands share.
	waitSeconds = 5
	// commandTimeout bounds a command, the wait for the lock included. The longest
	// that is allowed to begin takes about a second.
	commandTimeout = 15 * time.Second
	// maxOutput bounds what a command may print, in bytes: MaxRules of 200 bytes.
	maxOutput = 1 << 20
)

// Exit codes of iptables (xtables.h): OTHER_PROBLEM, RESOURCE_PROBLEM.
const (
	exitOther    = 1
	exitResource = 4
)

// failure is a command that ended with an error of its own.
type failure struct {
	code   int
	stderr string
	err    error
}

func (f *failure) Error() string { return fmt.Sprintf("%v: %s", f.err, f.stderr) }

func (f *failure) Unwrap() error { return f.err }

// run runs a command and returns what it printed. A command that prints more than
// maxOutput is ended, and the error is ErrTooMuch. An error of the command's own is
// a failure; it wraps ErrBusy if the command may work when it is run again.
func (t *Tables) run(ctx context.Context, stdin, command string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, append(args, "-w", strconv.Itoa(waitSeconds))...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(stdin)
	stdout, stderr := bounded{full: cancel}, bounded{full: cancel}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case stdout.exceeded || stderr.exceeded:
		return "", ErrTooMuch
	case ctx.Err() != nil:
		return "", fmt.Errorf("run %s: %w", command, ctx.Err())
	case errors.As(err, &exit) && exit.Exited():
		f := &failure{code: exit.ExitCode(), stderr: strings.TrimSpace(stderr.kept.String()), err: err}
		// nft has no lock, and its commands exit so for lasting reasons too.
		if t.backend == netfilter.Legacy && f.code == exitResource {
			f.err = fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return "", f
	case err != nil:
		return "", fmt.Errorf("run %s: %w", command, err)
	}
	return stdout.kept.String(), nil
}

// bounded keeps up to maxOutput bytes; at the first beyond, it calls full.
type bounded struct {
	kept     bytes.Buffer
	full     func()
	exceeded bool
}

// Write never fails: the command is ended by full.
func (b *bounded) Write(p []byte) (int, error) {
	if b.exceeded || b.kept.Len()+len(p) > maxOutput {
		b.exceeded = true
		b.full()
		return len(p), nil
	}
	return b.kept.Write(p)
}
