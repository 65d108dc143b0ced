// SPDX-License-Identifier: Apache-2.0

package kinds

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Set holds the objects of one kind. A change costs no more than a copy of a
// list of pointers, and an object that does not change keeps its pointer. It is
// not safe for concurrent use.
type Set interface {
	// Get returns the object of that name, or nil.
	Get(name types.NamespacedName) Object
	// Put adds the object, or replaces the one of its name. Objects that the
	// node has no use for are left out.
	Put(Object)
	// Delete removes the object of that name.
	Delete(name types.NamespacedName)
	// Names are those of all objects.
	Names() []types.NamespacedName
	// AddTo puts the objects into the inputs, which stay as they are when the
	// set changes.
	AddTo(*model.Inputs)
}

// NameOf is what a Set knows an object by.
func NameOf(o Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

type set[T any, P pointer[T]] struct {
	definition *Definition[T]
	nodeName   string
	index      map[types.NamespacedName]int
	objects    []*T
	// lent is set while somebody may be reading objects.
	lent bool
}

func (s *set[T, P]) Get(name types.NamespacedName) Object {
	if i, ok := s.index[name]; ok {
		return P(s.objects[i])
	}
	return nil
}

func (s *set[T, P]) Put(o Object) {
	name, object := NameOf(o), (*T)(o.(P))
	if s.definition.Wanted != nil && !s.definition.Wanted(object, s.nodeName) {
		s.Delete(name)
		return
	}
	i, ok := s.index[name]
	switch {
	case !ok:
		s.index[name] = len(s.objects)
		s.own()
		s.objects = append(s.objects, object)
	case s.objects[i] != object:
		s.own()
		s.objects[i] = object
	}
}

func (s *set[T, P]) Delete(name types.NamespacedName) {
	i, ok := s.index[name]
	if !ok {
		return
	}
	s.own()
	delete(s.index, name)
	last := len(s.objects) - 1
	if i < last {
		s.objects[i] = s.objects[last]
		s.index[NameOf(P(s.objects[i]))] = i
	}
	s.objects[last] = nil
	s.objects = s.objects[:last]
}

func (s *set[T, P]) Names() []types.NamespacedName {
	names := make([]types.NamespacedName, len(s.objects))
	for i, o := range s.objects {
		names[i] = NameOf(P(o))
	}
	return names
}

func (s *set[T, P]) AddTo(inputs *model.Inputs) {
	s.lent = true
	s.definition.AddTo(inputs, s.objects[:len(s.objects):len(s.objects)])
}

// own makes the list one that nobody else reads.
func (s *set[T, P]) own() {
	if s.lent {
		s.objects = slices.Clone(s.objects)
		s.lent = false
	}
}
