// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// TestReserveFiles: the kernel's table of this process's files is large, and nothing
// more is open.
func TestReserveFiles(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	if err := reserveFiles(); err != nil {
		t.Fatal(err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files are open, %d before", after, before)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	size := uint64(0)
	if line := regexp.MustCompile(`(?m)^FDSize:\s*(\d+)$`).FindSubmatch(status); line != nil {
		if _, err := fmt.Sscan(string(line[1]), &size); err != nil {
			t.Fatal(err)
		}
	}
	if size < min(limit.Cur, manyFiles) {
		t.Errorf("the table has room for %d files, want %d", size, min(limit.Cur, manyFiles))
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
