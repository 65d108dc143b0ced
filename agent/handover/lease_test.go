// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func anySlot(int) (bool, error) { return true, nil }

// acquire takes a slot as a process of its own would: flock is per open file, so
// two leases in one process exclude each other as two processes do.
func acquire(t *testing.T, shared, own string) *Lease {
	t.Helper()
	return acquireAs(t, HostMode, shared, own)
}

func acquireAs(t *testing.T, mode, shared, own string) *Lease {
	t.Helper()
	p, err := Acquire(shared, own, mode, anySlot)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func closeLease(t *testing.T, p *Lease) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func ownership(t *testing.T, l *Lease) Ownership {
	t.Helper()
	o, err := l.Ownership()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// took says whether f ran.
func took(t *testing.T, how func(func() error) error) bool {
	t.Helper()
	ran := false
	err := how(func() error { ran = true; return nil })
	if ran != (err == nil) || (err != nil && !errors.Is(err, ErrSuperseded)) {
		t.Fatalf("ran %v with error %v", ran, err)
	}
	return ran
}

func TestNewerGenerationTakesOver(t *testing.T) {
	shared := t.TempDir()
	old := acquire(t, shared, t.TempDir())
	if took(t, old.IfOwner) {
		t.Error("held without having taken")
	}
	if !took(t, old.TakeOver) || !took(t, old.IfOwner) {
		t.Fatal("the only generation could not take over")
	}
	fresh := acquire(t, shared, t.TempDir())
	if fresh.Slot() == old.Slot() {
		t.Fatalf("both generations have slot %d", fresh.Slot())
	}
	if took(t, fresh.IfOwner) || took(t, fresh.IfNoOtherOwner) {
		t.Error("a generation acted as owner before it took over")
	}
	if !took(t, old.IfOwner) {
		t.Error("the old generation lost ownership before it was taken")
	}
	if !took(t, fresh.TakeOver) {
		t.Fatal("the newer generation could not take over")
	}
	for name, how := range map[string]func(func() error) error{"TakeOver": old.TakeOver, "IfOwner": old.IfOwner, "IfNoOtherOwner": old.IfNoOtherOwner, "IfNoOtherOwnerNow": old.IfNoOtherOwnerNow} {
		if took(t, how) {
			t.Errorf("superseded generation could %s", name)
		}
	}
	if ownership(t, old).Owner || !ownership(t, fresh).Owner {
		t.Error("the owner is not the one that took over last")
	}
	closeLease(t, fresh)
	if !took(t, old.TakeOver) {
		t.Error("the old generation could not take back from a dead one")
	}
	closeLease(t, old)
}

func TestRestartKeepsSlot(t *testing.T) {
	shared, own := t.TempDir(), t.TempDir()
	first := acquire(t, shared, own)
	took(t, first.TakeOver)
	newer := acquire(t, shared, t.TempDir())
	closeLease(t, first)
	again, err := Acquire(shared, own, HostMode, func(int) (bool, error) { return false, nil })
	if err != nil {
		t.Fatalf("a former slot needs no free ports: %v", err)
	}
	if again.Slot() != first.Slot() || !took(t, again.IfOwner) {
		t.Errorf("restarted in slot %d, was %d and owner", again.Slot(), first.Slot())
	}
	if !took(t, newer.TakeOver) || took(t, again.TakeOver) {
		t.Error("a restart made the older generation the newer one")
	}
	closeLease(t, again)
	closeLease(t, newer)
}

func TestSlotWithBusyPortsIsPassedOver(t *testing.T) {
	p, err := Acquire(t.TempDir(), t.TempDir(), HostMode, func(slot int) (bool, error) { return slot == 3, nil })
	if err != nil || p.Slot() != 3 {
		t.Fatalf("slot %v, error %v, want 3", p, err)
	}
	closeLease(t, p)
	if _, err := Acquire(t.TempDir(), t.TempDir(), HostMode, func(int) (bool, error) { return false, nil }); !errors.Is(err, ErrFull) {
		t.Errorf("a node without a free slot: %v", err)
	}
	fault, shared, own := errors.New("out of descriptors"), t.TempDir(), t.TempDir()
	if _, err := Acquire(shared, own, HostMode, func(int) (bool, error) { return false, fault }); !errors.Is(err, fault) || errors.Is(err, ErrFull) {
		t.Errorf("a node that can't be looked at: %v", err)
	}
	closeLease(t, acquire(t, shared, own))
}

func TestDamagedOwnerIsNobody(t *testing.T) {
	shared := t.TempDir()
	p := acquire(t, shared, t.TempDir())
	if err := os.WriteFile(filepath.Join(shared, ownerFile), []byte(`{"slot":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if !took(t, p.IfNoOtherOwner) || !took(t, p.TakeOver) || !took(t, p.IfOwner) {
		t.Error("a file cut short by a crash kept the kernel from everybody")
	}
	closeLease(t, p)
}

func TestOneAgentInARunDirectory(t *testing.T) {
	own := t.TempDir()
	p := acquire(t, t.TempDir(), own)
	if _, err := Acquire(t.TempDir(), own, HostMode, anySlot); err == nil {
		t.Error("two agents share a run directory")
	}
	closeLease(t, p)
}

// While neither the agent nor the Envoy of a generation ran, its slot looked
// free and another one took it.
func TestRestartFindsFormerSlotTaken(t *testing.T) {
	shared, own := t.TempDir(), t.TempDir()
	first := acquire(t, shared, own)
	closeLease(t, first)
	newer := acquire(t, shared, t.TempDir())
	if newer.Slot() != first.Slot() {
		t.Fatalf("slot %d, want the freed %d", newer.Slot(), first.Slot())
	}
	again := acquire(t, shared, own)
	if again.Slot() == newer.Slot() {
		t.Errorf("two generations in slot %d", again.Slot())
	}
	if !took(t, newer.TakeOver) || took(t, again.TakeOver) {
		t.Error("a restart made the older generation the newer one")
	}
	closeLease(t, again)
	again = acquire(t, shared, own)
	if again.Slot() == newer.Slot() {
		t.Error("the new slot was not kept")
	}
	closeLease(t, again)
	closeLease(t, newer)
}

// A generation that came after the count was lost must not take itself for the
// oldest.
func TestLostCountKeepsTheOrder(t *testing.T) {
	for _, lost := range []string{lastFile, ownerFile} {
		shared := t.TempDir()
		for range 3 {
			closeLease(t, acquire(t, shared, t.TempDir()))
		}
		old := acquire(t, shared, t.TempDir())
		took(t, old.TakeOver)
		if err := os.Remove(filepath.Join(shared, lost)); err != nil {
			t.Fatal(err)
		}
		fresh := acquire(t, shared, t.TempDir())
		if !took(t, fresh.TakeOver) || took(t, old.TakeOver) {
			t.Errorf("without %s the newer generation does not take over", lost)
		}
		closeLease(t, fresh)
		closeLease(t, old)
	}
}

// Looking whether a generation lives must never make another one believe that
// it does.
func TestLookingHoldsNothing(t *testing.T) {
	shared := t.TempDir()
	path := filepath.Join(shared, "slot-0.lock")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if is, err := taken(path); err != nil || is {
					t.Errorf("a lock that nobody holds is taken: %v, error %v", is, err)
					return
				}
			}
		}
	}()
	for range 2000 {
		if is, err := taken(path); err != nil || is {
			t.Fatalf("a lock that is only looked at is taken: %v, error %v", is, err)
		}
	}
	close(stop)
	<-stopped
}

// TestUnreadableOwnerIsNotKnown: an error is no answer, and nothing is done by it.
func TestUnreadableOwnerIsNotKnown(t *testing.T) {
	shared := t.TempDir()
	l := acquire(t, shared, t.TempDir())
	took(t, l.TakeOver)
	if err := errors.Join(os.Remove(filepath.Join(shared, ownerFile)), os.Mkdir(filepath.Join(shared, ownerFile), 0o700)); err != nil {
		t.Fatal(err)
	}
	if o, err := l.Ownership(); err == nil {
		t.Errorf("an owner that can't be read is %+v", o)
	}
	for name, how := range map[string]func(func() error) error{"TakeOver": l.TakeOver, "IfOwner": l.IfOwner, "IfNoOtherOwner": l.IfNoOtherOwner, "IfNoOtherOwnerNow": l.IfNoOtherOwnerNow} {
		if err := how(func() error { t.Errorf("%s ran", name); return nil }); err == nil || errors.Is(err, ErrSuperseded) {
			t.Errorf("%s: %v", name, err)
		}
	}
	closeLease(t, l)
}
