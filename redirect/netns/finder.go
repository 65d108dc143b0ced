// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Wanted is a pod whose network namespace is looked for.
type Wanted struct {
	// UID is the pod's, Name its namespace and name, for messages.
	UID, Name string
	// IPs are all addresses that the pod has.
	IPs []netip.Addr
}

// Finder finds the network namespaces of pods, and holds those it found.
type Finder struct {
	cfg Config
	now func() time.Time
	log *zap.Logger

	mu   sync.Mutex
	held map[string]*Space
}

// New makes a Finder. now tells the time.
func New(cfg Config, now func() time.Time, log *zap.Logger) *Finder {
	return &Finder{cfg: cfg, now: now, log: log, held: map[string]*Space{}}
}

// Find gives each wanted pod's namespace by the pod's UID, or the reason why there
// is none. A pod is given the same Space until that one is wrong, which closes it,
// or until Release. A pod that isn't found is looked for again by later calls, the
// less often the longer it is missing. A namespace matches if it has any of
// the pod's addresses; Space.Addresses tells which.
func (f *Finder) Find(want []Wanted) (found map[string]*Space, missing map[string]error) {
	return map[string]*Space{}, map[string]error{}
}

// Release closes a pod's namespace and forgets the pod.
func (f *Finder) Release(uid string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.held[uid]; s != nil {
		_ = s.Close()
	}
	delete(f.held, uid)
}

// All opens every network namespace but the host's own. The caller closes them,
// also when there is an error.
func (f *Finder) All() ([]*Space, error) { return nil, errors.ErrUnsupported }

// Close closes every namespace that was found.
func (f *Finder) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for uid, s := range f.held {
		_ = s.Close()
		delete(f.held, uid)
	}
}
