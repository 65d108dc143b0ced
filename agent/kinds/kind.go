// SPDX-License-Identifier: Apache-2.0

package kinds

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Object is an object of any kind in the table.
type Object interface {
	runtime.Object
	metav1.Object
}

// Kind is one entry of the table. Kinds are made by Define.
type Kind struct {
	schema.GroupVersionKind
	// Resource is the plural that the API's paths use.
	Resource   string
	Namespaced bool
	// Optional kinds are those whose CustomResourceDefinition may not be
	// installed: where an API server does not serve one, there is no object of
	// it, and nothing waits for it.
	Optional bool
	// Select narrows what the API server is asked for.
	Select func(nodeName string) Selector
	// New and NewList make an empty object and an empty list.
	New     func() Object
	NewList func() runtime.Object
	// Trim returns a copy that has only the fields that are read. It may share
	// memory with its argument, which it does not write to.
	Trim func(Object, *Interner) Object
	// Equal says whether two trimmed versions of one object are the same to the
	// model, whatever their resourceVersions.
	Equal func(before, after Object) bool
	// NewSet makes an empty set of objects of this kind.
	NewSet func(nodeName string) Set
}

// Selector is what the API server is to select by; empty for everything.
type Selector struct{ Labels, Fields string }

// Definition is how a kind whose objects are of type T is read.
type Definition[T any] struct {
	// Kind is the group, version and kind; Resource its plural.
	Kind                 schema.GroupVersionKind
	Resource             string
	Namespaced, Optional bool
	// NewList makes an empty list.
	NewList func() runtime.Object
	// Select is nil if all objects are read.
	Select func(nodeName string) Selector
	// Trim returns a copy that has only the fields that are read.
	Trim func(*T, *Interner) *T
	// Equal compares what Trim keeps, but for the resourceVersion.
	Equal func(before, after *T) bool
	// Wanted says which objects the node has a use for; nil for all.
	Wanted func(object *T, nodeName string) bool
	// Place puts all objects, in any order, into the inputs. It neither changes
	// nor extends the list.
	Place func(inputs *model.Inputs, objects []*T)
}

// Define makes an entry of the table.
func Define[T any, P interface {
	*T
	Object
}](d Definition[T],
) Kind {
	if d.Select == nil {
		d.Select = func(string) Selector { return Selector{} }
	}
	return Kind{
		GroupVersionKind: d.Kind, Resource: d.Resource, Namespaced: d.Namespaced, Optional: d.Optional,
		Select:  d.Select,
		New:     func() Object { return P(new(T)) },
		NewList: d.NewList,
		Trim: func(o Object, in *Interner) Object {
			return P(d.Trim((*T)(o.(P)), in))
		},
		Equal: func(before, after Object) bool {
			return d.Equal((*T)(before.(P)), (*T)(after.(P)))
		},
		NewSet: func(nodeName string) Set {
			return newSet[T, P](&d, nodeName)
		},
	}
}

// Scheme knows the kinds and their lists, and what the API's requests need.
func Scheme(kinds []Kind) *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, k := range kinds {
		scheme.AddKnownTypeWithName(k.GroupVersionKind, k.New())
		scheme.AddKnownTypeWithName(k.GroupVersion().WithKind(k.Kind+"List"), k.NewList())
		metav1.AddToGroupVersion(scheme, k.GroupVersion())
	}
	return scheme
}
