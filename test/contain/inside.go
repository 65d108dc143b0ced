// SPDX-License-Identifier: Apache-2.0

package contain

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// furnish makes the new namespaces usable: private mounts, /proc, /run.
func furnish(setup Setup) error {
	unix.CloseOnExec(keptFD)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if setup.Processes {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
	}
	// Locks and sockets: iptables-legacy has a file there.
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return nil
}

// Kept tells the process outside, of a Setup with Keep, to exit with this code
// and to leave the inside running, then waits for its end.
func Kept(code int) {
	outside := os.NewFile(keptFD, "kept")
	// A reader of the program's output sees its end.
	if null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0); err == nil {
		for fd := range 3 {
			_ = unix.Dup2(int(null.Fd()), fd)
		}
	}
	if _, err := outside.Write([]byte{byte(code)}); err != nil {
		return
	}
	outside.Close()
	select {}
}
