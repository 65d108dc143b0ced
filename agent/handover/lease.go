// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Slots is how many generations can be on a node at once. Two is normal; there
// are more while old ones drain.
const Slots = 8

// ErrSuperseded says that another generation owns the kernel's rules.
var ErrSuperseded = errors.New("a newer generation has taken over")

// ErrFull says that no slot is free and usable.
var ErrFull = errors.New("all slots are taken")

// Files in the shared directory, and the two in the generation's own. Agents of all
// versions know them by these names.
const (
	ownerFile = "owner.json"
	lastFile  = "last.json"
	lockFile  = "kernel.lock"
	leaseFile = "place.json"
	runFile   = "agent.lock"
)

// HostMode is the mode of a generation that recorded none: the first ones knew no
// other.
const HostMode = "host"

// Lease is one generation's slot on the node, and its claim to own the kernel's
// rules. It is held until Close. Its methods may be called from any goroutine.
type Lease struct {
	dir string
	me  record
	// run is the lock of the generation's own directory, slot that of its slot.
	run, slot *os.File
}

// Acquire takes a slot in the shared directory, for an agent that redirects in
// this mode. An agent that was restarted beside its running Envoy gets its former
// slot, which it recorded in runDir, a directory that only this generation uses.
// usable says whether the ports of a slot are free; its error, that this can't be
// told, is returned. It is not asked about a former slot, whose Envoy may still
// listen there.
func Acquire(sharedDir, runDir, mode string, usable func(slot int) (bool, error)) (*Lease, error) {
	for _, dir := range []string{sharedDir, runDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	run, err := lock(filepath.Join(runDir, runFile), unix.F_OFD_SETLK)
	if err != nil {
		return nil, err
	}
	if run == nil {
		return nil, fmt.Errorf("another agent runs in %s", runDir)
	}
	l := &Lease{dir: sharedDir, run: run, me: record{Mode: mode}}
	err = l.locked(func() error { return l.acquireSlot(filepath.Join(runDir, leaseFile), usable) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("acquire a slot in %s: %w", sharedDir, err), run.Close())
	}
	return l, nil
}

// acquireSlot takes the former slot, or another one. The former slot may be gone:
// while neither agent nor Envoy of this generation ran, it looked free.
func (l *Lease) acquireSlot(own string, usable func(slot int) (bool, error)) error {
	former, err := read(own)
	if err != nil {
		return err
	}
	latest, err := l.latestOrder()
	if err != nil {
		return err
	}
	l.me.Order = latest + 1
	if former != nil {
		// The mode is this agent's, whatever it was before the restart.
		l.me.Slot, l.me.Order = former.Slot, former.Order
		if l.slot, err = lock(l.slotFile(former.Slot), unix.F_OFD_SETLK); err != nil {
			return err
		}
	}
	if l.slot == nil {
		return l.chooseSlot(own, latest, usable)
	}
	return l.recordOrder(latest)
}

// chooseSlot takes the first slot that is free; latest is the latest order known.
func (l *Lease) chooseSlot(own string, latest int, usable func(slot int) (bool, error)) error {
	for slot := range Slots {
		held, err := lock(l.slotFile(slot), unix.F_OFD_SETLK)
		if err != nil {
			return err
		}
		if held == nil {
			continue
		}
		free, err := usable(slot)
		if err != nil {
			return errors.Join(fmt.Errorf("look for listeners in slot %d: %w", slot, err), held.Close())
		}
		if !free {
			if err := held.Close(); err != nil {
				return fmt.Errorf("unlock slot %d: %w", slot, err)
			}
			continue
		}
		l.me.Slot, l.slot = slot, held
		return errors.Join(l.recordOrder(latest), write(own, l.me))
	}
	return fmt.Errorf("%w, of %d", ErrFull, Slots)
}

// latestOrder is the order of the latest generation known, 0 for none. Either
// file may be lost; a generation that counted from 1 again would take an older
// owner for a newer one.
func (l *Lease) latestOrder() (int, error) {
	order := 0
	for _, name := range []string{lastFile, ownerFile} {
		r, err := read(filepath.Join(l.dir, name))
		if err != nil {
			return 0, err
		}
		if r != nil {
			order = max(order, r.Order)
		}
	}
	return order, nil
}

// recordOrder records this generation as the latest, unless latest is its order.
func (l *Lease) recordOrder(latest int) error {
	if l.me.Order <= latest {
		return nil
	}
	return write(filepath.Join(l.dir, lastFile), l.me)
}

// Slot is the number of this generation's listener ports, from 0.
func (l *Lease) Slot() int { return l.me.Slot }

// Close gives the slot up.
func (l *Lease) Close() error {
	if err := errors.Join(l.slot.Close(), l.run.Close()); err != nil {
		return fmt.Errorf("close slot %d: %w", l.me.Slot, err)
	}
	return nil
}
