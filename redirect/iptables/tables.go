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

	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Errors that callers branch on.
var (
	// ErrNotFound: there is no chain of that name.
	ErrNotFound = errors.New("no such chain")
	// ErrUnreadable: nft wrote rules into the chain that iptables can't show.
	ErrUnreadable = errors.New("the chain has rules that iptables can't read, made by nft")
	// ErrBusy: another process held the lock of the legacy tables all the time
	// that was waited for it, or changed the table meanwhile. Try again.
	ErrBusy = errors.New("iptables is busy: another process holds its lock")
	// ErrUnsupported: the commands or the kernel lack a table, a match, a target or a
	// set, or don't let this process use it.
	ErrUnsupported = errors.New("iptables or the kernel lacks it")
	// ErrNoCommand: the commands of this backend and family are not installed.
	ErrNoCommand = errors.New("command not found")
)

// Present says whether List's error means that the chain is there all the same.
func Present(err error) bool {
	return err == nil || errors.Is(err, ErrUnreadable) || errors.Is(err, dump.ErrTooMuch)
}

// versionWord is the backend as "iptables --version" shows it, in parentheses.
func versionWord(b netfilter.Backend) string {
	if b == netfilter.Legacy {
		return "legacy"
	}
	return "nf_tables"
}

// MaxRules bounds the rules of a chain that is listed, and what refers to the
// chain. The chains of this project have about ten; the kernel's own, which others
// use too, have some dozens even in the busiest cluster. A pod that may administer
// its network can have any number, and reading 300,000 takes a second and 140 MB.
const MaxRules = 5000

// MaxTable bounds a table of the legacy backend, in bytes, after Untrusted. Its
// commands read and write whole tables, whatever they are asked: 4 MiB is about
// 20,000 rules, some thousand times what a pod with a service mesh's rules has.
const MaxTable = 4 << 20

// maxTableRules bounds a table of the nft backend in the same way: with 300,000 rules
// in another chain its commands take seconds to list one.
const maxTableRules = 20_000

// Tables are the tables of one backend and one family.
type Tables struct {
	backend       netfilter.Backend
	family        family.Family
	list, restore string
	// maxTable bounds a legacy table, in bytes; 0 for no bound of tables.
	maxTable int
}

// Open finds the commands of a backend and family; ErrNoCommand without them.
func Open(b netfilter.Backend, f family.Family) (*Tables, error) {
	command, err := find(b, f)
	if err != nil {
		return nil, err
	}
	t := &Tables{backend: b, family: f}
	if t.list, err = exec.LookPath(command); err != nil {
		return nil, fmt.Errorf("%s: %w", command, ErrNoCommand)
	}
	if t.restore, err = exec.LookPath(command + "-restore"); err != nil {
		return nil, fmt.Errorf("%s-restore: %w", command, ErrNoCommand)
	}
	return t, nil
}

// Untrusted is the same for network namespaces in which others may write any
// number of rules. A table beyond MaxTable, or maxTableRules, is dump.ErrTooMuch for
// each method that reads or writes rules. (The host's may be larger: kube-proxy writes
// one rule or more for each endpoint.)
func (t *Tables) Untrusted() *Tables {
	u := *t
	u.maxTable = MaxTable
	return &u
}

// find names the command: the one called after the backend, or the plain one
// when it says it is of that backend.
func find(b netfilter.Backend, f family.Family) (string, error) {
	plain := family.Pick(f, "iptables", "ip6tables")
	named := plain + "-" + string(b)
	if _, err := exec.LookPath(named); err == nil {
		return named, nil
	}
	out, err := exec.Command(plain, "--version").Output()
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil && strings.Contains(string(out), "("+versionWord(b)):
		return plain, nil
	case err != nil && !errors.Is(err, exec.ErrNotFound) && (!ended || !exit.Exited()):
		return "", fmt.Errorf("ask for the backend: run %s: %w", plain, err)
	}
	return "", fmt.Errorf("%s: %w", named, ErrNoCommand)
}

// Backend is the backend it was opened for.
func (t *Tables) Backend() netfilter.Backend { return t.backend }

// Family is the family it was opened for.
func (t *Tables) Family() family.Family { return t.family }

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
// maxOutput is ended, and the error is dump.ErrTooMuch. An error of the command's own is
// a failure; it wraps ErrBusy if the command may work when it is run again, and
// ErrUnsupported if it says that it never will.
func (t *Tables) run(ctx context.Context, stdin, command string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	wait := waitSeconds
	if end, ok := ctx.Deadline(); ok {
		// Time is left to say so.
		wait = max(1, min(wait, int(time.Until(end)/time.Second))) //nolint:forbidigo // the edge: the command has a clock of its own
	}
	cmd := exec.CommandContext(ctx, command, append(args, "-w", strconv.Itoa(wait))...)
	cmd.WaitDelay = time.Second
	cmd.Stdin = strings.NewReader(stdin)
	stdout, stderr := bounded{full: cancel}, bounded{full: cancel}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case stdout.exceeded || stderr.exceeded:
		return "", dump.ErrTooMuch
	case ctx.Err() != nil:
		return "", fmt.Errorf("run %s: %w", command, ctx.Err())
	case errors.As(err, &exit) && exit.Exited():
		f := &failure{code: exit.ExitCode(), stderr: strings.TrimSpace(stderr.kept.String()), err: err}
		// nft has no lock, and its commands exit so for lasting reasons too.
		if t.backend == netfilter.Legacy && f.code == exitResource {
			f.err = fmt.Errorf("%w: %w", ErrBusy, err)
		} else if isLack(f.stderr) {
			f.err = fmt.Errorf("%w: %w", ErrUnsupported, err)
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
