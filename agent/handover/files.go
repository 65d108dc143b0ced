// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// slotFile is the lock file of a slot.
func (p *Place) slotFile(slot int) string {
	return filepath.Join(p.dir, "slot-"+strconv.Itoa(slot)+".lock")
}

// locked runs f while no other generation runs anything through its Place.
func (p *Place) locked(f func() error) (err error) {
	held, err := lock(filepath.Join(p.dir, lockFile), unix.F_OFD_SETLKW)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	return f()
}

// lock opens and locks a file; nil without an error when F_OFD_SETLK found it
// taken. The lock is the open file's, which no other program inherits
// (O_CLOEXEC), so the kernel drops it when the process ends, however it ends.
func lock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for {
		err = unix.FcntlFlock(f.Fd(), how, &unix.Flock_t{Type: unix.F_WRLCK})
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return nil, f.Close()
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
}

// taken says whether anybody holds a lock, and takes it at no time itself: who
// looks is never mistaken for who holds it.
func taken(path string) (is bool, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, fmt.Errorf("open lock: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	look := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &look); err != nil {
		return false, fmt.Errorf("look at lock %s: %w", path, err)
	}
	return look.Type != unix.F_UNLCK, nil
}

// read returns what a file claims, nil when there is none or it was cut short
// by a crash.
func read(path string) (*claim, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read claim: %w", err)
	}
	c := new(claim)
	if json.Unmarshal(text, c) != nil || c.Slot < 0 || c.Slot >= Slots {
		return nil, nil
	}
	if c.Mode == "" {
		c.Mode = HostMode
	}
	return c, nil
}

// write replaces a claim in one step.
func write(path string, c claim) error {
	text, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode claim: %w", err)
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("write claim: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("replace claim: %w", err)
	}
	return nil
}
