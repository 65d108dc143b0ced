// SPDX-License-Identifier: Apache-2.0

// Command nodevoy-launch starts Envoy with no more rights than it needs: see
// package confine. It is one small static program, to be copied into a container
// that has the stock Envoy and nothing else.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"

	"github.com/nodevoy/nodevoy/agent/confine"
)

func main() {
	var cfg confine.Config
	flag.IntVar(&cfg.User, "user", 65532, "number of the user, and group, to run it as")
	flag.StringVar(&cfg.RunDir, "run-dir", "/run/nodevoy", "directory of its configuration and sockets")
	flag.Func("netns-dir", "directory of network namespaces that it enters; may be given several times", func(text string) error {
		cfg.NetnsDirs = append(cfg.NetnsDirs, text)
		return nil
	})
	flag.Func("capabilities", "its capabilities: NET_ADMIN, NET_RAW, SYS_ADMIN, SYS_PTRACE, separated by commas; none by default", func(text string) (err error) {
		cfg.Capabilities, err = confine.ParseCapabilities(text)
		return err
	})
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: nodevoy-launch [flags] -- PROGRAM [arguments]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	argv := flag.Args()
	path, err := exec.LookPath(argv[0])
	if err == nil {
		argv[0] = path
		err = cfg.Exec(os.Stderr, argv, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "nodevoy-launch:", err)
	os.Exit(1)
}
