// SPDX-License-Identifier: Apache-2.0

// Command bench measures what nodevoy adds to a request: the same requests, to
// the same backends, in turns from a pod that isn't enrolled, by kube-proxy's
// DNAT; from pods that are, by Envoy in host mode and in pod mode; and from a
// pod with a plain Envoy of its own, as a sidecar. Every Envoy has one worker
// and the same access log. Read the ratios: clients, servers and Envoys share
// the processors of one machine, whose noise is as large as what is measured:
// many short rounds tell more than a few long ones. With -instructions, what is
// measured of each Envoy is exact instead, but slow and without the kernel's part.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"
	"time"

	"github.com/nodevoy/nodevoy/test/contain"
	"github.com/nodevoy/nodevoy/test/lab"
)

// config is what the flags say.
type config struct {
	output  string
	rounds  int
	seconds float64
	conns   int
	size    int
	// instructions counts those of each Envoy, and measures nothing else.
	instructions bool
	// bulk is the size in MiB of transfers to measure, and nothing else.
	bulk int
	// looking measures what it costs to look at calls, and nothing else.
	looking bool
	// only names the rows to measure.
	only *regexp.Regexp
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == bulkCommand {
		os.Exit(bulkMain(os.Args[2:]))
	}
	os.Exit(lab.Main(contain.Setup{}, run))
}

func run() int {
	var cfg config
	flag.StringVar(&cfg.output, "o", "table", "table or json")
	flag.IntVar(&cfg.rounds, "rounds", 20, "times that each measurement is made; the median counts. Paths take turns evenly over each 4")
	flag.Float64Var(&cfg.seconds, "seconds", 0.5, "length of each measurement")
	flag.IntVar(&cfg.conns, "connections", 16, "connections of the client at a time")
	flag.IntVar(&cfg.size, "size", 1024, "padding of each answer, in bytes")
	flag.BoolVar(&cfg.instructions, "instructions", false, "count the instructions of each Envoy in user space, by valgrind, and measure nothing else")
	flag.IntVar(&cfg.bulk, "bulk", 0, "measure the speed of transfers of so many MiB, at once and with a delay to the backends, and nothing else")
	flag.BoolVar(&cfg.looking, "looking", false, "measure what flows and the access log cost, and nothing else")
	flag.Func("only", "measure only the rows whose name matches this regular expression", func(text string) (err error) {
		cfg.only, err = regexp.Compile(text)
		return err
	})
	flag.Parse()
	if cfg.output != "table" && cfg.output != "json" || cfg.rounds < 1 || cfg.seconds <= 0 || cfg.conns < 1 || cfg.size < 0 || cfg.bulk < 0 || len(cfg.rows()) == 0 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "bench: want -o table or json, -size and -bulk from 0, -rounds, -seconds and -connections above 0, and -only in the name of a row")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if cfg.looking {
		if err := measureLooking(ctx, cfg); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		return 0
	}
	rows, err := measure(ctx, cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	if cfg.bulk > 0 {
		return 0
	}
	if cfg.output == "json" {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		err = out.Encode(struct {
			CPUs        int     `json:"cpus"`
			Connections int     `json:"connections"`
			Size        int     `json:"answerBytes"`
			Rounds      int     `json:"rounds"`
			Rows        []*row  `json:"rows"`
			Length      float64 `json:"seconds"`
		}{runtime.NumCPU(), cfg.conns, cfg.size, cfg.rounds, rows, cfg.seconds})
		if err != nil {
			return 1
		}
		return 0
	}
	fmt.Printf("\n%d CPUs, %d connections at a time, answers of %d bytes and more, medians of %d rounds of %s each\n\n",
		runtime.NumCPU(), cfg.conns, cfg.size, cfg.rounds, time.Duration(cfg.seconds*float64(time.Second)))
	printTable(rows, cfg.instructions)
	return 0
}
