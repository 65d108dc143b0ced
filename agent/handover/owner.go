// SPDX-License-Identifier: Apache-2.0

package handover

import "path/filepath"

// Ownership is who owns the kernel's rules, as one generation sees it. The zero
// value is that of a node without an owner.
type Ownership struct {
	// Owner is set when this generation owns the rules.
	Owner bool
	// Superseded is set when a newer generation owns them, and lives. An older
	// owner, which this generation has not taken over from yet, doesn't count.
	Superseded bool
	// OtherMode is set when the last owner redirected in another mode, or had yet
	// to remove what one of another mode left.
	OtherMode bool
	// ModeChanged is set when this generation redirected in another mode before it
	// was restarted, and has not begun to in this one: its Envoy is the same.
	ModeChanged bool
	// SweepDue is set when this generation owns the rules and has yet to remove
	// those that an owner of another mode left.
	SweepDue bool
}

// Ownership reads who owns the kernel's rules. After an error it is not known.
func (l *Lease) Ownership() (Ownership, error) {
	owner, superseded, err := l.owner()
	if err != nil || owner == nil {
		return Ownership{}, err
	}
	mine := owner.is(l.me)
	return Ownership{
		Owner: mine, Superseded: superseded,
		OtherMode:   owner.SweepDue || owner.Mode != l.me.Mode,
		ModeChanged: mine && owner.Mode != l.me.Mode,
		SweepDue:    mine && owner.SweepDue,
	}, nil
}

// TakeOver runs f as the owner of the kernel's rules, and makes this generation
// the owner if it was not. It returns ErrSuperseded, and does not run f, while
// a newer generation owns them and lives.
func (l *Lease) TakeOver(f func() error) error {
	return l.locked(func() error {
		before, superseded, err := l.owner()
		if err != nil {
			return err
		}
		if superseded {
			return ErrSuperseded
		}
		me := l.me
		me.SweepDue = before != nil && (before.SweepDue || before.Mode != me.Mode)
		if before == nil || *before != me {
			if err := l.own(me); err != nil {
				return err
			}
		}
		return f()
	})
}

// IfOwner runs f if this generation owns the kernel's rules, else it returns
// ErrSuperseded. It never takes them over.
func (l *Lease) IfOwner(f func() error) error {
	return l.locked(func() error {
		owner, err := read(l.ownerFile())
		if err != nil {
			return err
		}
		if owner == nil || !owner.is(l.me) {
			return ErrSuperseded
		}
		return f()
	})
}

// IfNoOtherOwner runs f if no other live generation owns the kernel's rules of
// this generation's mode, else it returns ErrSuperseded.
func (l *Lease) IfNoOtherOwner(f func() error) error {
	return l.locked(func() error { return l.IfNoOtherOwnerNow(f) })
}

// IfNoOtherOwnerNow is IfNoOtherOwner without waiting for what any generation is
// doing at the moment. It is for what must not wait and does no harm to a
// generation that takes over in the same instant.
func (l *Lease) IfNoOtherOwnerNow(f func() error) error {
	owner, err := read(l.ownerFile())
	if err != nil {
		return err
	}
	if owner != nil && !owner.is(l.me) && owner.Mode == l.me.Mode {
		alive, err := l.alive(owner.Slot)
		if err != nil {
			return err
		}
		if alive {
			return ErrSuperseded
		}
	}
	return f()
}

// OthersAlive says whether any other generation on the node lives, in whatever
// mode, older or newer.
func (l *Lease) OthersAlive() (bool, error) {
	for slot := range Slots {
		alive, err := l.alive(slot)
		if alive || err != nil {
			return alive, err
		}
	}
	return false, nil
}

// Swept records that nothing of another mode is left in the kernel.
func (l *Lease) Swept() error {
	return l.IfOwner(func() error { return l.own(l.me) })
}

// owner is the recorded owner, nil for none, and whether it is newer than this
// generation and lives.
func (l *Lease) owner() (owner *record, superseded bool, err error) {
	owner, err = read(l.ownerFile())
	if err != nil || owner == nil || owner.Order <= l.me.Order {
		return owner, false, err
	}
	superseded, err = l.alive(owner.Slot)
	return owner, superseded, err
}

// alive says whether a process holds the slot.
func (l *Lease) alive(slot int) (bool, error) {
	if slot == l.me.Slot {
		return false, nil // Held by this process: the generation recorded there has ended.
	}
	return taken(l.slotFile(slot))
}

func (l *Lease) ownerFile() string { return filepath.Join(l.dir, ownerFile) }

// own records the owner.
func (l *Lease) own(r record) error { return write(l.ownerFile(), r) }
