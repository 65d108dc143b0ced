// SPDX-License-Identifier: Apache-2.0

// Package handover lets generations of the agent follow each other on one node
// without a gap: while a new pod starts beside the old one, each has listener
// ports of its own, and exactly one writes to the kernel. What decides is in a
// directory of the node that all generations share: a lock file for each slot
// of ports, held for life, and a file that names the owner of the kernel's rules.
package handover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Slots is how many generations can be on a node at once. Two is the rule;
// more happen while old ones drain.
const Slots = 8

// ErrSuperseded says that another generation owns the kernel's rules.
var ErrSuperseded = errors.New("a newer generation has taken over")

// ErrFull says that no slot is free and usable.
var ErrFull = errors.New("all slots are taken")

// Files in the shared directory, and the two in the generation's own.
const (
	ownerFile = "owner.json"
	lastFile  = "last.json"
	lockFile  = "kernel.lock"
	placeFile = "place.json"
	runFile   = "agent.lock"
)

// HostMode is the mode of a generation that wrote none: the first ones knew no
// other.
const HostMode = "host"

// claim is what a generation writes about itself.
type claim struct {
	Slot int `json:"slot"`
	// Order is higher for a later generation.
	Order int `json:"order"`
	// Mode is where the generation redirects: generations of different modes
	// have nothing in the kernel in common.
	Mode string `json:"mode,omitempty"`
	// Unswept is written by an owner that came after one of another mode, until
	// it has removed what that one left.
	Unswept bool `json:"unswept,omitempty"`
}

// is says whether two claims are of the same generation.
func (c claim) is(other claim) bool { return c.Slot == other.Slot && c.Order == other.Order }

// Place is one generation's place on the node, held until Close.
type Place struct {
	dir string
	me  claim
	// run locks the generation's own directory, held its slot.
	run, held *os.File
}

// Join takes a place in the shared directory, for an agent that redirects in
// this mode. An agent that was restarted beside its running Envoy finds its
// former place in runDir, which only this generation uses. usable says whether
// the ports of a slot are free; it is not asked about a former place, whose
// Envoy may still listen there.
func Join(sharedDir, runDir, mode string, usable func(slot int) bool) (*Place, error) {
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
	p := &Place{dir: sharedDir, run: run, me: claim{Mode: mode}}
	err = p.locked(func() error { return p.settle(filepath.Join(runDir, placeFile), usable) })
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take a place in %s: %w", sharedDir, err), run.Close())
	}
	return p, nil
}

// settle finds the former place, or another one. The former slot may be gone:
// while neither agent nor Envoy of this generation ran, it looked free.
func (p *Place) settle(own string, usable func(slot int) bool) error {
	former, err := read(own)
	if err != nil {
		return err
	}
	order, err := p.latest()
	if err != nil {
		return err
	}
	if former == nil {
		return p.choose(own, order+1, usable)
	}
	if p.held, err = lock(p.slotFile(former.Slot), unix.F_OFD_SETLK); err != nil {
		return err
	}
	if p.held == nil {
		return p.choose(own, former.Order, usable)
	}
	// The mode is this agent's, whatever it was before the restart.
	p.me.Slot, p.me.Order = former.Slot, former.Order
	return p.noteLatest(order)
}

// choose takes the first slot that is free.
func (p *Place) choose(own string, order int, usable func(slot int) bool) error {
	latest, err := p.latest()
	if err != nil {
		return err
	}
	for slot := range Slots {
		held, err := lock(p.slotFile(slot), unix.F_OFD_SETLK)
		if err != nil {
			return err
		}
		if held == nil {
			continue
		}
		if !usable(slot) {
			if err := held.Close(); err != nil {
				return fmt.Errorf("leave slot %d: %w", slot, err)
			}
			continue
		}
		p.me.Slot, p.me.Order, p.held = slot, order, held
		return errors.Join(p.noteLatest(latest), write(own, p.me))
	}
	return fmt.Errorf("%w, of %d", ErrFull, Slots)
}

// latest is the order of the latest generation known, 0 for none. Either file
// may be lost; a newcomer that counted from 1 again would wait for ever for an
// owner that seems newer.
func (p *Place) latest() (int, error) {
	order := 0
	for _, name := range []string{lastFile, ownerFile} {
		c, err := read(filepath.Join(p.dir, name))
		if err != nil {
			return 0, err
		}
		if c != nil {
			order = max(order, c.Order)
		}
	}
	return order, nil
}

// noteLatest lets later generations know of this one; latest is what they know.
func (p *Place) noteLatest(latest int) error {
	if p.me.Order <= latest {
		return nil
	}
	return write(filepath.Join(p.dir, lastFile), p.me)
}

// Slot is the number of this generation's listener ports, from 0.
func (p *Place) Slot() int { return p.me.Slot }

// Take runs f as the owner of the kernel's rules, and makes this generation
// the owner if it was not. It returns ErrSuperseded, and does not run f, while
// a newer generation is alive and owns them.
func (p *Place) Take(f func() error) error {
	return p.locked(func() error {
		mine, err := p.mayTake()
		if err != nil {
			return err
		}
		if !mine {
			return ErrSuperseded
		}
		before, err := p.owner()
		if err != nil {
			return err
		}
		me := p.me
		me.Unswept = before != nil && (before.Unswept || before.Mode != me.Mode)
		if before == nil || *before != me {
			if err := p.own(me); err != nil {
				return err
			}
		}
		return f()
	})
}

// AfterOther says whether the last owner of the kernel's rules was one of another
// mode, or had yet to remove what one of another mode left.
func (p *Place) AfterOther() bool {
	owner, err := p.owner()
	return err == nil && owner != nil && (owner.Unswept || owner.Mode != p.me.Mode)
}

// Changed says whether this generation redirected in another mode before it was
// restarted, and has not begun to in this one: its Envoy is the same.
func (p *Place) Changed() bool {
	owner, err := p.owner()
	return err == nil && owner != nil && owner.is(p.me) && owner.Mode != p.me.Mode
}

// Unswept says whether this generation owns the kernel's rules and has yet to
// remove those that an owner of another mode left.
func (p *Place) Unswept() bool {
	owner, err := p.owner()
	return err == nil && owner != nil && owner.is(p.me) && owner.Unswept
}

// Swept notes that nothing of another mode is left in the kernel.
func (p *Place) Swept() error {
	return p.Hold(func() error { return p.own(p.me) })
}

// Others says whether any other generation is on the node and lives, in
// whatever mode, before or after this one.
func (p *Place) Others() (bool, error) {
	for slot := range Slots {
		alive, err := p.alive(slot)
		if alive || err != nil {
			return alive, err
		}
	}
	return false, nil
}

// Hold runs f if this generation owns the kernel's rules, else it returns
// ErrSuperseded. It never takes them over.
func (p *Place) Hold(f func() error) error {
	return p.locked(func() error {
		owner, err := p.owner()
		if err != nil {
			return err
		}
		if owner == nil || !owner.is(p.me) {
			return ErrSuperseded
		}
		return f()
	})
}

// Alone runs f if no other live generation owns the kernel's rules of this
// generation's mode, else it returns ErrSuperseded.
func (p *Place) Alone(f func() error) error {
	return p.locked(func() error { return p.AtOnce(f) })
}

// AtOnce is Alone without waiting for what any generation is doing at the
// moment. It is for what must not wait and does no harm to a generation that
// takes over in the same instant.
func (p *Place) AtOnce(f func() error) error {
	owner, err := p.owner()
	if err != nil {
		return err
	}
	if owner != nil && !owner.is(p.me) && owner.Mode == p.me.Mode {
		alive, err := p.alive(owner.Slot)
		if err != nil {
			return err
		}
		if alive {
			return ErrSuperseded
		}
	}
	return f()
}

// Mine says whether this generation owns the kernel's rules at the moment.
func (p *Place) Mine() bool {
	owner, err := p.owner()
	return err == nil && owner != nil && owner.is(p.me)
}

// Superseded says whether a newer generation owns the kernel's rules, and lives.
// An older owner, which this generation has not taken over from, doesn't count.
func (p *Place) Superseded() bool {
	mine, err := p.mayTake()
	return err == nil && !mine
}

// Close gives the place up.
func (p *Place) Close() error {
	if err := errors.Join(p.held.Close(), p.run.Close()); err != nil {
		return fmt.Errorf("leave slot %d: %w", p.me.Slot, err)
	}
	return nil
}

// mayTake says whether the owner is this generation, an older one, or dead.
func (p *Place) mayTake() (bool, error) {
	owner, err := p.owner()
	if err != nil || owner == nil || owner.Order <= p.me.Order {
		return err == nil, err
	}
	alive, err := p.alive(owner.Slot)
	return !alive, err
}

// alive says whether a process holds the slot.
func (p *Place) alive(slot int) (bool, error) {
	if slot == p.me.Slot {
		return false, nil // Held by this process: whoever wrote it is gone.
	}
	return taken(p.slotFile(slot))
}

func (p *Place) owner() (*claim, error) { return read(filepath.Join(p.dir, ownerFile)) }

// own writes who the owner is.
func (p *Place) own(c claim) error { return write(filepath.Join(p.dir, ownerFile), c) }
