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

// busyLimit is the part of the machine's CPU time that the load may take, from 0 to
// 1. The rest is for what the tests do under load: on a machine without idle CPUs
// requests wait for one, whatever carries them.
const busyLimit = 0.5

// adaptLoad lowers the rate of the load, until the end of the test, where this
// machine can't afford it.
func (c *cluster) adaptLoad(t *testing.T) {
	t.Helper()
	idle, began := idleTime(t), time.Now()
	c.under(t, "load alone", func() { <-time.After(5 * time.Second) })
	whole := time.Since(began) * time.Duration(runtime.NumCPU())
	busy := 1 - float64(idleTime(t)-idle)/float64(whole)
	c.rate = wantedRate * min(1, busyLimit/busy)
	t.Cleanup(func() { c.rate = wantedRate })
	t.Logf("load alone: this machine is busy for %.0f %% of its time; the load is %.0f requests/s from now on", 100*busy, c.rate)
	if c.rate < leastRate {
		t.Fatalf("this machine is too slow: it affords %.0f requests/s, want %.0f", c.rate, leastRate)
	}
}

// idleTime is the CPU time that nobody used so far.
func idleTime(t *testing.T) time.Duration {
	t.Helper()
	idle, err := cpuTime(3, 4) // idle, iowait
	if err != nil {
		t.Fatal(err)
	}
	return idle
}

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

// machineTime is the CPU time that was used so far. Time stolen by the hypervisor is
// others'; that of interrupts is nobody's.
func machineTime() (time.Duration, error) {
	return cpuTime(0, 1, 2, 7) // user, nice, system, steal
}

// cpuTime adds up columns of /proc/stat.
func cpuTime(columns ...int) (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	var ticks time.Duration
	for _, i := range columns {
		i++ // after the name of the line
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
