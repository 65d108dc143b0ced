// SPDX-License-Identifier: Apache-2.0

// Command attack has pods attack the Envoy of their node, in each mode of
// redirection, while a victim on the same node makes requests, and says whether the
// victim and Envoy notice. Everything is real and in a lab (test/lab); Envoy runs as
// the chart starts it, in a control group with the chart's memory limit, so that
// the kernel kills it as it would in a cluster.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/test/contain"
	"github.com/nodevoy/nodevoy/test/lab"
)

// config is what the flags say.
type config struct {
	limit                 int64
	workers               int
	connections           int64
	modes                 []lab.Mode
	attackers             []int
	short                 bool
	only                  *regexp.Regexp
	before, length, after time.Duration
	// random is how long to attack at random, from this seed.
	random time.Duration
	seed   uint64
}

// heap is the bound of Envoy's heap that the chart makes of the limit, in bytes.
func (c config) heap() int64 {
	return max(c.limit-max(c.limit/5, 200<<20), c.limit/2)
}

func main() {
	os.Exit(start())
}

// start runs one of the programs that this is: an attacker, its servers, or the suite.
func start() int {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == attackerCommand:
		err = attackerMain(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == targetCommand:
		err = targetMain()
	default:
		return contained()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// contained runs the suite in namespaces of its own, with a control group that is
// made and removed outside of them: there is nobody left in it then.
func contained() int {
	setup := contain.Setup{}
	if contain.Inside() || len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		return lab.Main(setup, run)
	}
	dir, err := makeGroup()
	if err != nil {
		fmt.Fprintf(os.Stderr, "attack: no control group can be made (%v): Envoy's resident memory is read instead, and an Envoy above the limit is killed\n", err)
		return lab.Main(setup, run)
	}
	setup.Env = []string{groupEnv + "=" + dir}
	code := lab.Main(setup, run)
	if err := removeGroup(dir); err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		return max(code, 1)
	}
	return code
}

func run() int {
	cfg, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		return 2
	}
	if err := limitFiles(); err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	attack := cfg.attackAll
	if cfg.random > 0 {
		attack = cfg.attackAtRandom
	}
	if err := attack(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		return 1
	}
	return 0
}

// parse reads the command line.
func parse(args []string) (config, error) {
	cfg := config{modes: []lab.Mode{lab.Host, lab.Pods}, attackers: []int{1, 8}}
	flags := flag.NewFlagSet("attack", flag.ContinueOnError)
	limit := flags.Int64("limit", 1024, "memory limit of Envoy, in MiB")
	flags.IntVar(&cfg.workers, "workers", 2, "worker threads of Envoy")
	flags.Int64Var(&cfg.connections, "connections", 0, "how many connections of a pod are redirected at a time; 0 for what the chart makes of the limit")
	flags.BoolVar(&cfg.short, "short", false, "make only a few attacks, by one pod")
	flags.DurationVar(&cfg.before, "before", 3*time.Second, "how long the victim is measured before an attack")
	flags.DurationVar(&cfg.length, "length", 8*time.Second, "how long an attack lasts")
	flags.DurationVar(&cfg.after, "after", 2*time.Second, "how long the victim is measured after an attack")
	flags.DurationVar(&cfg.random, "random", 0, "make random attacks instead for this long, on one Envoy in each mode, with random objects written by tenants")
	flags.Uint64Var(&cfg.seed, "seed", uint64(time.Now().UnixNano()), "what -random begins with")
	flags.Func("only", "make only the attacks whose name matches this regular expression", func(text string) (err error) {
		cfg.only, err = regexp.Compile(text)
		return err
	})
	flags.Func("modes", "host, pod or both, with a comma", func(text string) error {
		cfg.modes = nil
		for mode := range strings.SplitSeq(text, ",") {
			if mode != string(lab.Host) && mode != string(lab.Pods) {
				return fmt.Errorf("want host or pod, not %q", mode)
			}
			cfg.modes = append(cfg.modes, lab.Mode(mode))
		}
		return nil
	})
	flags.Func("attackers", "numbers of pods that attack at once, with commas", func(text string) error {
		cfg.attackers = nil
		for number := range strings.SplitSeq(text, ",") {
			n, err := strconv.Atoi(number)
			if err != nil || n < 1 {
				return fmt.Errorf("want a number above 0, not %q", number)
			}
			cfg.attackers = append(cfg.attackers, n)
		}
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return cfg, err
	}
	if cfg.short {
		cfg.attackers, cfg.before, cfg.length, cfg.after = []int{1}, 2*time.Second, 4*time.Second, time.Second
	}
	cfg.limit = *limit << 20
	if cfg.connections == 0 {
		cfg.connections = cfg.heap() / (6 << 20)
	}
	if flags.NArg() > 0 || cfg.limit < 64<<20 || cfg.workers < 1 || len(cfg.chosen()) == 0 {
		return cfg, errors.New("want a limit of at least 64 MiB, workers, -only in the name of an attack, and no arguments")
	}
	return cfg, lab.Installed()
}

// files is how many files a process may have: fewer than a container usually may, so
// that few processes suffice to use up Envoy's.
const files = 20_000

// limitFiles limits this process and those that it starts.
func limitFiles() error {
	var have unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &have); err != nil {
		return fmt.Errorf("read the limit of files: %w", err)
	}
	most := min(have.Max, files)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}); err != nil {
		return fmt.Errorf("limit files: %w", err)
	}
	return nil
}
