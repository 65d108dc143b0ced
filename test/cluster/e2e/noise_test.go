// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// othersLimit is the part of the machine's CPU time that others may take before
// latencies say nothing.
const othersLimit = 0.2

// cpuUsage is CPU time used so far.
type cpuUsage struct {
	at time.Time
	// machine is everybody's, ours that of the cluster and of this process and
	// its children.
	machine, ours time.Duration
}

// others is the part of the machine, from 0 to 1, that neither cluster nor tests
// had, from one moment to a later one.
func (u cpuUsage) others(later cpuUsage) float64 {
	whole := later.at.Sub(u.at) * time.Duration(runtime.NumCPU())
	return max(0, float64(later.machine-u.machine-(later.ours-u.ours))/float64(whole))
}

func cpuNow(t *testing.T) cpuUsage {
	t.Helper()
	u := cpuUsage{at: time.Now()}
	var err error
	if u.machine, err = machineTime(); err != nil {
		t.Fatal(err)
	}
	if u.ours, err = clusterTime(controlGroup()); err != nil {
		t.Fatal(err)
	}
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var usage syscall.Rusage
		if err := syscall.Getrusage(who, &usage); err != nil {
			t.Fatalf("read the tests' CPU time: %v", err)
		}
		u.ours += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return u
}

// machineTime reads /proc/stat. Time stolen by the hypervisor is others'; that of
// interrupts is nobody's.
func machineTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	var ticks time.Duration
	for _, i := range []int{1, 2, 3, 8} { // user, nice, system, steal
		if i >= len(fields) {
			return 0, fmt.Errorf("/proc/stat begins with %q", line)
		}
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat begins with %q: %w", line, err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond, nil
}

// clusterTime reads a control group, of version 1 or 2.
func clusterTime(group string) (time.Duration, error) {
	for _, file := range []struct {
		path string
		unit time.Duration
	}{
		{"/sys/fs/cgroup/cpuacct/" + group + "/cpuacct.usage", time.Nanosecond},
		{"/sys/fs/cgroup/cpu,cpuacct/" + group + "/cpuacct.usage", time.Nanosecond},
		{"/sys/fs/cgroup/" + group + "/cpu.stat", time.Microsecond},
	} {
		text, err := os.ReadFile(file.path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text))
		value := fields[slices.Index(fields, "usage_usec")+1]
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", file.path, err)
		}
		return time.Duration(n) * file.unit, nil
	}
	return 0, fmt.Errorf("no control group counts the CPU time of %s", group)
}
