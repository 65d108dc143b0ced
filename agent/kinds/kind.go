// SPDX-License-Identifier: Apache-2.0

package kinds

import (
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

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
	// Select narrows what the API server is asked for; Define has nil ask for all.
	Select func(nodeName string) Selector
	// NewList makes an empty list.
	NewList func() runtime.Object

	// New makes an empty object. It and the fields below are for Define to set.
	New func() Object
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

// Definition is what is done with objects of a kind whose type is T.
type Definition[T any] struct {
	// Trim returns a copy that has only the fields that are read.
	Trim func(*T, *Interner) *T
	// Equal compares what Trim keeps, but for the resourceVersion; nil does so by
	// reflection.
	Equal func(before, after *T) bool
	// Wanted says which objects the node has a use for; nil for all.
	Wanted func(object *T, nodeName string) bool
	// AddTo puts all objects, in any order, into the inputs. It neither changes
	// nor extends the list.
	AddTo func(inputs *model.Inputs, objects []*T)
}

// pointer is *T, where that is an object.
type pointer[T any] interface {
	*T
	Object
}

// Define completes an entry of the table.
func Define[T any, P pointer[T]](k Kind, d Definition[T]) Kind {
	if k.Select == nil {
		k.Select = func(string) Selector { return Selector{} }
	}
	if d.Equal == nil {
		d.Equal = equalObjects[T, P]
	}
	k.New = func() Object { return P(new(T)) }
	k.Trim = func(o Object, in *Interner) Object { return P(d.Trim(o.(P), in)) }
	k.Equal = func(before, after Object) bool { return d.Equal(before.(P), after.(P)) }
	k.NewSet = func(nodeName string) Set {
		return &set[T, P]{definition: &d, nodeName: nodeName, index: map[types.NamespacedName]int{}}
	}
	return k
}

// equalObjects compares all but the resourceVersion.
func equalObjects[T any, P pointer[T]](before, after *T) bool {
	b, a := *before, *after
	P(&b).SetResourceVersion("")
	P(&a).SetResourceVersion("")
	return equality.Semantic.DeepEqual(&b, &a)
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

// Health is how the reading of one kind goes.
type Health struct {
	Kind string
	// Synced says whether every object of the kind has been read.
	Synced bool
	// Absent says that the API server does not serve this optional kind.
	Absent bool
	// Err is why the kind can't be read or followed now, and Since when that
	// began; nil and zero while it can. What was read before stays in force.
	Err   error
	Since time.Time
}
