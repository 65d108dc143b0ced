// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"os"
	"path/filepath"
	"testing"
)

const podMode = "pod"

// TestOtherModeEndsBesideANewerOwner: a generation that a newer one of another
// mode has taken over from is superseded, and may still remove what is its own.
func TestOtherModeEndsBesideANewerOwner(t *testing.T) {
	shared := t.TempDir()
	old := acquire(t, shared, t.TempDir())
	took(t, old.TakeOver)
	fresh := acquireAs(t, podMode, shared, t.TempDir())
	if !took(t, fresh.IfNoOtherOwner) {
		t.Error("before it took over, it may not touch what nobody else has")
	}
	if !took(t, fresh.TakeOver) {
		t.Fatal("the newer generation could not take over")
	}
	if took(t, old.TakeOver) || took(t, old.IfOwner) || !ownership(t, old).Superseded {
		t.Error("the older generation redirects beside the newer one")
	}
	if !took(t, old.IfNoOtherOwner) || !took(t, old.IfNoOtherOwnerNow) {
		t.Error("the older generation may not remove what is its own")
	}
	third := acquire(t, shared, t.TempDir())
	took(t, third.TakeOver)
	if took(t, old.IfNoOtherOwner) {
		t.Error("an older generation may remove what a newer one of its mode uses")
	}
	for _, p := range []*Lease{old, fresh, third} {
		closeLease(t, p)
	}
}

// TestSweepIsDueUntilItIsDone: what another mode left is remembered through
// crashes, until somebody has removed it.
func TestSweepIsDueUntilItIsDone(t *testing.T) {
	shared := t.TempDir()
	old := acquireAs(t, podMode, shared, t.TempDir())
	took(t, old.TakeOver)
	if ownership(t, old).SweepDue {
		t.Error("the first owner on a node has something to sweep")
	}
	first := acquire(t, shared, t.TempDir())
	if ownership(t, first).SweepDue {
		t.Error("a generation that is not the owner has something to sweep")
	}
	took(t, first.TakeOver)
	if !ownership(t, first).SweepDue {
		t.Error("nothing to sweep after another mode")
	}
	if others, err := first.OthersAlive(); err != nil || !others {
		t.Errorf("the older generation is not seen: %v, error %v", others, err)
	}
	closeLease(t, old)
	if others, err := first.OthersAlive(); err != nil || others {
		t.Errorf("others are seen where there are none: %v, error %v", others, err)
	}
	closeLease(t, first) // before it swept
	second := acquire(t, shared, t.TempDir())
	took(t, second.TakeOver)
	took(t, second.TakeOver)
	if !ownership(t, second).SweepDue {
		t.Error("what the crashed generation had to sweep is forgotten")
	}
	if err := second.Swept(); err != nil {
		t.Fatal(err)
	}
	took(t, second.TakeOver)
	if ownership(t, second).SweepDue {
		t.Error("what was swept is to be swept again")
	}
	closeLease(t, second)
}

// TestRestartInAnotherMode: the slot is the former one, the mode is not.
func TestRestartInAnotherMode(t *testing.T) {
	shared, own := t.TempDir(), t.TempDir()
	first := acquire(t, shared, own)
	took(t, first.TakeOver)
	closeLease(t, first)
	again := acquireAs(t, podMode, shared, own)
	if again.Slot() != first.Slot() || !ownership(t, again).Owner {
		t.Error("another mode lost the slot")
	}
	if ownership(t, first).ModeChanged || !ownership(t, again).ModeChanged {
		t.Error("it is not seen who changed the mode")
	}
	took(t, again.TakeOver)
	if ownership(t, again).ModeChanged {
		t.Error("the mode changes for ever")
	}
	if !ownership(t, again).SweepDue {
		t.Error("nothing to sweep after a restart in another mode")
	}
	closeLease(t, again)
}

// TestRecordWithoutModeIsHostMode: generations from before the modes write none.
func TestRecordWithoutModeIsHostMode(t *testing.T) {
	shared := t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, ownerFile), []byte(`{"slot":3,"order":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := acquire(t, shared, t.TempDir())
	took(t, p.TakeOver)
	if ownership(t, p).SweepDue {
		t.Error("host mode is taken for another mode")
	}
	closeLease(t, p)
	q := acquireAs(t, podMode, shared, t.TempDir())
	took(t, q.TakeOver)
	if !ownership(t, q).SweepDue {
		t.Error("host mode is not taken for another mode")
	}
	closeLease(t, q)
}
