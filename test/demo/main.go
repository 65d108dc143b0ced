// SPDX-License-Identifier: Apache-2.0

// Command demo shows what nodevoy does, in a quarter of a minute: it makes two
// nodes and five pods, calls a Service by kube-proxy alone and then with
// nodevoy, and prints both as one table. It fails when what it shows is not
// what it claims. With KEEP=1 it leaves everything up; `demo down` ends that.
// MODE chooses the mode of redirection: pod, host or auto.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nodevoy/nodevoy/test/contain"
	"github.com/nodevoy/nodevoy/test/lab"
)

func main() {
	os.Exit(run())
}

func run() int {
	if len(os.Args) == 2 && os.Args[1] == "down" {
		return report(down())
	}
	if err := notUp(); err != nil {
		return report(err)
	}
	keep := os.Getenv("KEEP") == "1"
	setup := contain.Setup{Keep: keep}
	var started int
	if keep {
		setup.Started = func(pid int) { started = pid }
	}
	code := lab.Main(setup, func() int {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		code := report(perform(ctx, keep))
		if keep && code == 0 {
			contain.Kept(0)
		}
		return code
	})
	if started != 0 && code == 0 {
		return report(leaveUp(started))
	}
	return code
}

// report prints an error and turns it into an exit code.
func report(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "\ninterrupted; everything is removed")
		return 130
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
}
