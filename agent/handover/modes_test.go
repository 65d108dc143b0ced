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
	old := join(t, shared, t.TempDir())
	took(t, old.Take)
	fresh := joinAs(t, podMode, shared, t.TempDir())
	if !took(t, fresh.Alone) {
		t.Error("before it took over, it may not touch what nobody else has")
	}
	if !took(t, fresh.Take) {
		t.Fatal("the newer generation could not take over")
	}
	if took(t, old.Take) || took(t, old.Hold) || !old.Superseded() {
		t.Error("the older generation redirects beside the newer one")
	}
	if !took(t, old.Alone) || !took(t, old.AtOnce) {
		t.Error("the older generation may not remove what is its own")
	}
	third := join(t, shared, t.TempDir())
	took(t, third.Take)
	if took(t, old.Alone) {
		t.Error("an older generation may remove what a newer one of its mode uses")
	}
	for _, p := range []*Place{old, fresh, third} {
		leave(t, p)
	}
}

// TestSweepIsDueUntilItIsDone: what another mode left is remembered through
// crashes, until somebody has removed it.
func TestSweepIsDueUntilItIsDone(t *testing.T) {
	shared := t.TempDir()
	old := joinAs(t, podMode, shared, t.TempDir())
	took(t, old.Take)
	if old.Unswept() {
		t.Error("the first owner on a node has something to sweep")
	}
	first := join(t, shared, t.TempDir())
	if first.Unswept() {
		t.Error("a generation that is not the owner has something to sweep")
	}
	took(t, first.Take)
	if !first.Unswept() {
		t.Error("nothing to sweep after another mode")
	}
	if others, err := first.Others(); err != nil || !others {
		t.Errorf("the older generation is not seen: %v, error %v", others, err)
	}
	leave(t, old)
	if others, err := first.Others(); err != nil || others {
		t.Errorf("others are seen where there are none: %v, error %v", others, err)
	}
	leave(t, first) // before it swept
	second := join(t, shared, t.TempDir())
	took(t, second.Take)
	took(t, second.Take)
	if !second.Unswept() {
		t.Error("what the crashed generation had to sweep is forgotten")
	}
	if err := second.Swept(); err != nil {
		t.Fatal(err)
	}
	took(t, second.Take)
	if second.Unswept() {
		t.Error("what was swept is to be swept again")
	}
	leave(t, second)
}

// TestRestartInAnotherMode: the place is the former one, the mode is not.
func TestRestartInAnotherMode(t *testing.T) {
	shared, own := t.TempDir(), t.TempDir()
	first := join(t, shared, own)
	took(t, first.Take)
	leave(t, first)
	again := joinAs(t, podMode, shared, own)
	if again.Slot() != first.Slot() || !again.Mine() {
		t.Error("another mode lost the place")
	}
	if first.Changed() || !again.Changed() {
		t.Error("it is not seen who changed the mode")
	}
	took(t, again.Take)
	if again.Changed() {
		t.Error("the mode changes for ever")
	}
	if !again.Unswept() {
		t.Error("nothing to sweep after a restart in another mode")
	}
	leave(t, again)
}

// TestClaimWithoutModeIsHostMode: generations from before the modes write none.
func TestClaimWithoutModeIsHostMode(t *testing.T) {
	shared := t.TempDir()
	if err := os.WriteFile(filepath.Join(shared, ownerFile), []byte(`{"slot":3,"order":7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	p := join(t, shared, t.TempDir())
	took(t, p.Take)
	if p.Unswept() {
		t.Error("host mode is taken for another mode")
	}
	leave(t, p)
	q := joinAs(t, podMode, shared, t.TempDir())
	took(t, q.Take)
	if !q.Unswept() {
		t.Error("host mode is not taken for another mode")
	}
	leave(t, q)
}
