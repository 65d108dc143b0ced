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
func (l *Lease) slotFile(slot int) string {
	return filepath.Join(l.dir, "slot-"+strconv.Itoa(slot)+".lock")
}

// locked runs f while no other generation runs anything through its Lease.
func (l *Lease) locked(f func() error) (err error) {
	held, err := lock(filepath.Join(l.dir, lockFile), unix.F_OFD_SETLKW)
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

// taken says whether another open file holds a lock. It never takes the lock
// itself, so that a check is never mistaken for a holder.
func taken(path string) (is bool, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false, fmt.Errorf("open lock: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	query := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &query); err != nil {
		return false, fmt.Errorf("query lock %s: %w", path, err)
	}
	return query.Type != unix.F_UNLCK, nil
}

// record is what a generation records about itself in a file.
type record struct {
	Slot int `json:"slot"`
	// Order is higher for a later generation.
	Order int `json:"order"`
	// Mode is where the generation redirects: generations of different modes
	// have nothing in the kernel in common.
	Mode string `json:"mode,omitempty"`
	// SweepDue is recorded by an owner that came after one of another mode, until
	// it has removed what that one left.
	SweepDue bool `json:"unswept,omitempty"`
}

// is says whether two records are of the same generation.
func (r record) is(other record) bool { return r.Slot == other.Slot && r.Order == other.Order }

// read returns a file's record, nil when there is none or a crash cut it short.
func read(path string) (*record, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read record: %w", err)
	}
	r := new(record)
	if json.Unmarshal(text, r) != nil || r.Slot < 0 || r.Slot >= Slots {
		return nil, nil
	}
	if r.Mode == "" {
		r.Mode = HostMode
	}
	return r, nil
}

// write replaces a record in one step.
func write(path string, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record: %w", err)
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("replace record: %w", err)
	}
	return nil
}
