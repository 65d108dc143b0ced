// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The kinds a Problem names.
const (
	kindNamespace     = "Namespace"
	kindPod           = "Pod"
	kindService       = "Service"
	kindEndpointSlice = "EndpointSlice"
)

// problems collects what users wrote wrongly while a Node is built.
type problems struct{ list []Problem }

func (p *problems) add(kind string, meta *metav1.ObjectMeta, field, detail string) {
	p.list = append(p.list, Problem{
		Kind: kind, Namespace: meta.Namespace, Name: meta.Name, Field: field, Detail: detail,
	})
}

// addAll adds those of another list.
func (p *problems) addAll(other problems) { p.list = append(p.list, other.list...) }

// sorted is the final list: by object, then field, each Problem once.
func (p *problems) sorted() []Problem {
	slices.SortFunc(p.list, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.Kind, b.Kind),
			cmp.Compare(a.Namespace, b.Namespace),
			cmp.Compare(a.Name, b.Name),
			cmp.Compare(a.Field, b.Field),
			cmp.Compare(a.Detail, b.Detail),
		)
	})
	return slices.Compact(p.list)
}

// tally counts faults of one sort in one object, so that an EndpointSlice
// with a thousand bad endpoints is one Problem and not a thousand.
type tally struct {
	first int // index of the first one
	count int
	value string // what the first one holds
}

// add counts the fault of the element at index, which holds value.
func (t *tally) add(index int, value string) {
	if t.count == 0 {
		t.first, t.value = index, value
	}
	t.count++
}

// more is the tail of a Detail: how many further ones there are.
func (t *tally) more() string {
	if t.count < 2 {
		return ""
	}
	return "; " + strconv.Itoa(t.count-1) + " more like it"
}

// at is the path of the first one: at("endpoints", ".addresses").
func (t *tally) at(list, field string) string { return indexed(list, t.first, field) }

func indexed(list string, i int, field string) string {
	return list + "[" + strconv.Itoa(i) + "]" + field
}
