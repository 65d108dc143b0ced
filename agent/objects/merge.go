// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// merge joins the files into one whole. Of an object that is written twice the
// one in the first file by name counts, and in one file the first.
func (d *directory) merge(nodeName string) (model.Inputs, []model.Problem) {
	inputs := model.Inputs{NodeName: nodeName}
	var problems []model.Problem
	if d.lost != nil {
		problems = append(problems, model.Problem{
			Kind: kindFile, Name: d.path, Detail: d.lost.Error() + "; its objects stay in force",
		})
	}
	firstIn := map[objectKey]string{}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[name]
		problems = append(problems, f.unread...)
		for _, fault := range f.faults {
			if f.documents != nil {
				fault.Detail += "; the last good version of " + name + " stays in force"
			} else {
				fault.Detail += "; nothing of " + name + " is used"
			}
			problems = append(problems, fault)
		}
		for _, o := range f.objects {
			if first, ok := firstIn[o.key]; ok {
				problems = append(problems, model.Problem{
					Kind: o.key.kind, Namespace: o.key.namespace, Name: o.key.name,
					Detail: "is in " + first + " and again in " + name + "; the first one counts",
				})
				continue
			}
			firstIn[o.key] = name
			put(&inputs, o)
		}
	}
	return inputs, problems
}

// put adds the object to the inputs, if they have a place for it: only this
// node's Node and pods count.
func put(inputs *model.Inputs, o object) {
	switch value := o.value.(type) {
	case *corev1.Namespace:
		inputs.Namespaces = append(inputs.Namespaces, value)
	case *corev1.Node:
		if value.Name == inputs.NodeName {
			inputs.Node = value
		}
	case *corev1.Pod:
		if value.Spec.NodeName == inputs.NodeName {
			inputs.Pods = append(inputs.Pods, value)
		}
	case *corev1.Service:
		inputs.Services = append(inputs.Services, value)
	case *discoveryv1.EndpointSlice:
		inputs.EndpointSlices = append(inputs.EndpointSlices, value)
	}
}
