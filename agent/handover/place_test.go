// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func anySlot(int) bool { return true }

// join takes a place as a process of its own would: flock is per open file, so
// two places in one process exclude each other as two processes do.
func join(t *testing.T, shared, own string) *Place {
	t.Helper()
	return joinAs(t, HostMode, shared, own)
}

func joinAs(t *testing.T, mode, shared, own string) *Place {
	t.Helper()
	p, err := Join(shared, own, mode, anySlot)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func leave(t *testing.T, p *Place) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
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
	old := join(t, shared, t.TempDir())
	if took(t, old.Hold) {
		t.Error("held without having taken")
	}
	if !took(t, old.Take) || !took(t, old.Hold) {
		t.Fatal("the only generation could not take over")
	}
	fresh := join(t, shared, t.TempDir())
	if fresh.Slot() == old.Slot() {
		t.Fatalf("both generations have slot %d", fresh.Slot())
	}
	if took(t, fresh.Hold) || took(t, fresh.Alone) {
		t.Error("a generation acted as owner before it took over")
	}
	if !took(t, old.Hold) {
		t.Error("the old generation lost ownership before it was taken")
	}
	if !took(t, fresh.Take) {
		t.Fatal("the newer generation could not take over")
	}
	for name, how := range map[string]func(func() error) error{"Take": old.Take, "Hold": old.Hold, "Alone": old.Alone, "AtOnce": old.AtOnce} {
		if took(t, how) {
			t.Errorf("superseded generation could %s", name)
		}
	}
	if old.Mine() || !fresh.Mine() {
		t.Error("the owner is not the one that took over last")
	}
	leave(t, fresh)
	if !took(t, old.Take) {
		t.Error("the old generation could not take back from a dead one")
	}
	leave(t, old)
}

func TestRestartKeepsPlace(t *testing.T) {
	shared, own := t.TempDir(), t.TempDir()
	first := join(t, shared, own)
	took(t, first.Take)
	newer := join(t, shared, t.TempDir())
	leave(t, first)
	again, err := Join(shared, own, HostMode, func(int) bool { return false })
	if err != nil {
		t.Fatalf("a former place needs no free ports: %v", err)
	}
	if again.Slot() != first.Slot() || !took(t, again.Hold) {
		t.Errorf("restarted in slot %d, was %d and owner", again.Slot(), first.Slot())
	}
	if !took(t, newer.Take) || took(t, again.Take) {
		t.Error("a restart made the older generation the newer one")
	}
	leave(t, again)
	leave(t, newer)
}

func TestSlotWithBusyPortsIsPassedOver(t *testing.T) {
	p, err := Join(t.TempDir(), t.TempDir(), HostMode, func(slot int) bool { return slot == 3 })
	if err != nil || p.Slot() != 3 {
		t.Fatalf("slot %v, error %v, want 3", p, err)
	}
	leave(t, p)
	if _, err := Join(t.TempDir(), t.TempDir(), HostMode, func(int) bool { return false }); !errors.Is(err, ErrFull) {
		t.Errorf("a node without a free slot: %v", err)
	}
}

func TestDamagedOwnerIsNobody(t *testing.T) {
	shared := t.TempDir()
	p := join(t, shared, t.TempDir())
	if err := os.WriteFile(filepath.Join(shared, ownerFile), []byte(`{"slot":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if !took(t, p.Alone) || !took(t, p.Take) || !took(t, p.Hold) {
		t.Error("a file cut short by a crash kept the kernel from everybody")
	}
	leave(t, p)
}

func TestOneAgentInARunDirectory(t *testing.T) {
	own := t.TempDir()
	p := join(t, t.TempDir(), own)
	if _, err := Join(t.TempDir(), own, HostMode, anySlot); err == nil {
		t.Error("two agents share a run directory")
	}
	leave(t, p)
}

// While neither the agent nor the Envoy of a generation ran, its slot looked
// free and another one took it.
func TestRestartFindsFormerSlotTaken(t *testing.T) {
	shared, own := t.TempDir(), t.TempDir()
	first := join(t, shared, own)
	leave(t, first)
	newer := join(t, shared, t.TempDir())
	if newer.Slot() != first.Slot() {
		t.Fatalf("slot %d, want the freed %d", newer.Slot(), first.Slot())
	}
	again := join(t, shared, own)
	if again.Slot() == newer.Slot() {
		t.Errorf("two generations in slot %d", again.Slot())
	}
	if !took(t, newer.Take) || took(t, again.Take) {
		t.Error("a restart made the older generation the newer one")
	}
	leave(t, again)
	again = join(t, shared, own)
	if again.Slot() == newer.Slot() {
		t.Error("the new place was not kept")
	}
	leave(t, again)
	leave(t, newer)
}

// A generation that came after the count was lost must not take itself for the
// oldest.
func TestLostCountKeepsTheOrder(t *testing.T) {
	for _, lost := range []string{lastFile, ownerFile} {
		shared := t.TempDir()
		for range 3 {
			leave(t, join(t, shared, t.TempDir()))
		}
		old := join(t, shared, t.TempDir())
		took(t, old.Take)
		if err := os.Remove(filepath.Join(shared, lost)); err != nil {
			t.Fatal(err)
		}
		fresh := join(t, shared, t.TempDir())
		if !took(t, fresh.Take) || took(t, old.Take) {
			t.Errorf("without %s the newer generation does not take over", lost)
		}
		leave(t, fresh)
		leave(t, old)
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
