// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
)

// store is the set of objects that a reflector fills. client-go's informers
// hold every object twice over and list all of them for each change; here a
// change costs one comparison, and an object that is the same to the model
// keeps its pointer, also when everything is listed again.
type store struct {
	kind     kinds.Kind
	interned *kinds.Interner
	// changed is called after each change that the model can see.
	changed func()
	// replaced is closed when every object has been read.
	replaced chan struct{}
	once     sync.Once

	mu  sync.Mutex
	set kinds.Set
}

var _ cache.TransformingStore = (*store)(nil)

func newStore(kind kinds.Kind, nodeName string, interned *kinds.Interner, changed func()) *store {
	return &store{
		kind: kind, interned: interned, changed: changed,
		replaced: make(chan struct{}), set: kind.NewSet(nodeName),
	}
}

// Transformer trims objects as they arrive in a streamed list, which is kept
// elsewhere until it is complete.
func (s *store) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		if o, ok := object.(kinds.Object); ok {
			return s.kind.Trim(o, s.interned), nil
		}
		return object, nil
	}
}

// Add and Update keep the object unless the one that is kept is the same.
func (s *store) Add(object any) error { return s.Update(object) }

// Update is Add.
func (s *store) Update(object any) error {
	o, err := s.object(object)
	if err != nil {
		return err
	}
	s.mu.Lock()
	changed := s.put(s.kind.Trim(o, s.interned))
	s.mu.Unlock()
	if changed {
		s.changed()
	}
	return nil
}

// Delete forgets the object of that name.
func (s *store) Delete(object any) error {
	o, err := s.object(object)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.set.Delete(kinds.NameOf(o))
	s.mu.Unlock()
	s.changed()
	return nil
}

// Replace makes these the objects.
func (s *store) Replace(objects []any, _ string) error {
	s.mu.Lock()
	changed := false
	present := make(map[types.NamespacedName]bool, len(objects))
	for _, object := range objects {
		o, err := s.object(object)
		if err != nil {
			s.mu.Unlock()
			return err
		}
		present[kinds.NameOf(o)] = true
		changed = s.put(s.kind.Trim(o, s.interned)) || changed
	}
	for _, name := range s.set.Names() {
		if !present[name] {
			s.set.Delete(name)
			changed = true
		}
	}
	s.mu.Unlock()
	s.sync()
	if changed {
		s.changed()
	}
	return nil
}

// Resync has nothing to do.
func (s *store) Resync() error { return nil }

// put keeps the trimmed object, and says whether that changed anything.
func (s *store) put(o kinds.Object) bool {
	if kept := s.set.Get(kinds.NameOf(o)); kept != nil && s.kind.Equal(kept, o) {
		return false
	}
	s.set.Put(o)
	return true
}

func (s *store) object(object any) (kinds.Object, error) {
	o, ok := object.(kinds.Object)
	if !ok {
		return nil, fmt.Errorf("store %s: got a %T", s.kind.Kind, object)
	}
	return o, nil
}

// sync says that every object is here.
func (s *store) sync() { s.once.Do(func() { close(s.replaced) }) }

// synced says whether every object has been read.
func (s *store) synced() bool {
	select {
	case <-s.replaced:
		return true
	default:
		return false
	}
}

// addTo puts the objects into the inputs.
func (s *store) addTo(inputs *model.Inputs) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set.AddTo(inputs)
}

// uid is that of the object of this name; empty if there is none.
func (s *store) uid(name types.NamespacedName) types.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.set.Get(name); o != nil {
		return o.GetUID()
	}
	return ""
}
