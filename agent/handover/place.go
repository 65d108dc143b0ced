// SPDX-License-Identifier: Apache-2.0

// Package handover lets generations of the agent follow each other on one node
// without a gap: while a new pod starts beside the old one, each has listener
// ports of its own, and exactly one writes to the kernel. What decides is in a
// directory of the node that all generations share: a lock file for each slot
// of ports, held for life, and a file that names the owner of the kernel's rules.
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

// Slots is how many generations can be on a node at once. Two is the rule;
// more happen while old ones drain.
const Slots = 8

// ErrSuperseded says that another generation owns the kernel's rules.
var ErrSuperseded = errors.New("a newer generation has taken over")

// Files in the shared directory, and the one in the generation's own.
const (
	ownerFile = "owner.json"
	lastFile  = "last.json"
	lockFile  = "kernel.lock"
	placeFile = "place.json"
)

// claim is what a generation writes about itself.
type claim struct {
	Slot int `json:"slot"`
	// Order is higher for a later generation.
	Order int `json:"order"`
}

// Place is one generation's place on the node, held until Close.
type Place struct {
	dir  string
	me   claim
	held *os.File
}

// Join takes a place in the shared directory. An agent that was restarted
// beside its running Envoy finds its former place in runDir, which only this
// generation uses. usable says whether the ports of a slot are free; it is not
// asked about a former place, whose Envoy may still listen there.
func Join(sharedDir, runDir string, usable func(slot int) bool) (*Place, error) {
	for _, dir := range []string{sharedDir, runDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	p := &Place{dir: sharedDir}
	err := p.locked(func() error { return p.settle(filepath.Join(runDir, placeFile), usable) })
	if err != nil {
		return nil, fmt.Errorf("take a place in %s: %w", sharedDir, err)
	}
	return p, nil
}

// settle finds the former place, or the first free slot after all others.
func (p *Place) settle(own string, usable func(slot int) bool) error {
	former, err := read(own)
	if err != nil {
		return err
	}
	if former != nil {
		p.me = *former
		held, err := p.tryLock(former.Slot)
		if err != nil {
			return err
		}
		if held == nil {
			return fmt.Errorf("slot %d is held by another process", former.Slot)
		}
		p.held = held
		return nil
	}
	last, err := read(filepath.Join(p.dir, lastFile))
	if err != nil {
		return err
	}
	order := 1
	if last != nil {
		order = last.Order + 1
	}
	for slot := range Slots {
		held, err := p.tryLock(slot)
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
		p.me, p.held = claim{Slot: slot, Order: order}, held
		return errors.Join(write(filepath.Join(p.dir, lastFile), p.me), write(own, p.me))
	}
	return fmt.Errorf("all %d slots are taken", Slots)
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
		if err := write(filepath.Join(p.dir, ownerFile), p.me); err != nil {
			return err
		}
		return f()
	})
}

// Hold runs f if this generation owns the kernel's rules, else it returns
// ErrSuperseded. It never takes them over.
func (p *Place) Hold(f func() error) error {
	return p.locked(func() error {
		owner, err := p.owner()
		if err != nil {
			return err
		}
		if owner == nil || *owner != p.me {
			return ErrSuperseded
		}
		return f()
	})
}

// Alone runs f if no other live generation owns the kernel's rules, else it
// returns ErrSuperseded.
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
	if owner != nil && *owner != p.me {
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
	return err == nil && owner != nil && *owner == p.me
}

// Close gives the place up.
func (p *Place) Close() error {
	if err := p.held.Close(); err != nil {
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
	held, err := p.tryLock(slot)
	if err != nil {
		return false, err
	}
	if held == nil {
		return true, nil
	}
	return false, held.Close()
}

func (p *Place) owner() (*claim, error) { return read(filepath.Join(p.dir, ownerFile)) }

// tryLock returns the slot's locked file, nil when another process holds it.
func (p *Place) tryLock(slot int) (*os.File, error) {
	return lock(filepath.Join(p.dir, "slot-"+strconv.Itoa(slot)+".lock"), unix.LOCK_EX|unix.LOCK_NB)
}

// locked runs f while no other generation runs anything through its Place.
func (p *Place) locked(f func() error) (err error) {
	held, err := lock(filepath.Join(p.dir, lockFile), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	return f()
}

// lock opens and flocks a file; nil without an error when LOCK_NB found it
// taken. The kernel drops the lock when the process ends, however it ends.
func lock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EWOULDBLOCK):
			return nil, f.Close()
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
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
