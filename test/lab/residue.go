// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// machine is what a lab could leave behind on the machine, were it not
// contained: lines of the packet filter and of ipsets that bear our name, and
// network devices.
type machine map[string]bool

// readMachine reads the machine's state; a tool that is missing has nothing to show.
func readMachine() machine {
	m := machine{}
	commands := [][]string{{"nft", "-s", "list", "ruleset"}, {"ipset", "save"}, {"ip", "rule"}}
	// Listing a legacy table would load it into the kernel.
	for _, family := range []string{"ip", "ip6"} {
		names, _ := os.ReadFile("/proc/net/" + family + "_tables_names")
		for table := range strings.FieldsSeq(string(names)) {
			commands = append(commands, []string{family + "tables-legacy-save", "-t", table})
		}
	}
	for _, argv := range commands {
		out, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(strings.ToLower(line), "nodevoy") {
				m[argv[0]+": "+strings.TrimSpace(line)] = true
			}
		}
	}
	links, _ := os.ReadDir("/sys/class/net")
	for _, link := range links {
		if name := link.Name(); strings.HasPrefix(name, lanPrefix) {
			m["device: "+name] = true
		}
	}
	return m
}

// since returns an error that names everything that is there now and was not
// before, and every process of the lab, which has this mark.
func (m machine) since(before machine, mark string) error {
	var errs []error
	for what := range m {
		if !before[what] {
			errs = append(errs, fmt.Errorf("left behind: %s", what))
		}
	}
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range environs {
		// A process that has just ended has no environment.
		if text, err := os.ReadFile(file); err == nil && bytes.Contains(text, []byte(mark)) {
			errs = append(errs, fmt.Errorf("left behind: process %s", filepath.Base(filepath.Dir(file))))
		}
	}
	return errors.Join(errs...)
}
