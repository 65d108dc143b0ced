// SPDX-License-Identifier: Apache-2.0

package kinds

import "sync"

// internerSize bounds an Interner: names come and go, and what it has forgotten
// is merely stored again.
const internerSize = 50_000

// Interner stores equal strings once. It is safe for concurrent use.
type Interner struct {
	mu      sync.Mutex
	strings map[string]*string
	yes, no bool
}

// NewInterner makes an empty one.
func NewInterner() *Interner { return &Interner{strings: map[string]*string{}, yes: true} }

// pointer is a shared pointer to an equal string; nil for nil.
func (in *Interner) pointer(s *string) *string {
	if s == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	known, ok := in.strings[*s]
	if !ok {
		if len(in.strings) >= internerSize {
			clear(in.strings)
		}
		own := *s
		known = &own
		in.strings[own] = known
	}
	return known
}

func (in *Interner) string(s string) string { return *in.pointer(&s) }

func (in *Interner) bool(b *bool) *bool {
	switch {
	case b == nil:
		return nil
	case *b:
		return &in.yes
	default:
		return &in.no
	}
}
