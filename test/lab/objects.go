// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// Objects are the Kubernetes objects of a lab, kept as a directory of
// YAML with one file for each object, replaced whole.
type Objects struct {
	dir     string
	byFile  map[string]runtime.Object
	written map[string][]byte
}

func newObjects(dir string) (*Objects, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make directory of objects: %w", err)
	}
	return &Objects{dir: dir, byFile: map[string]runtime.Object{}, written: map[string][]byte{}}, nil
}

// SetNamespace adds a namespace or changes its labels.
func (o *Objects) SetNamespace(name string, labels map[string]string) {
	o.byFile["namespace-"+name] = &corev1.Namespace{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"},
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid("namespace", name), Labels: labels},
	}
}

// Set adds a Service or EndpointSlice as it is, or replaces it; or a pod of which there
// is nothing but its object.
func (o *Objects) Set(object runtime.Object) {
	switch x := object.(type) {
	case *corev1.Service:
		x.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
		o.byFile["service-"+x.Namespace+"-"+x.Name] = x
	case *discoveryv1.EndpointSlice:
		x.TypeMeta = metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}
		o.byFile["endpointslice-"+x.Namespace+"-"+x.Name] = x
	case *corev1.Pod:
		x.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
		o.byFile["pod-"+x.Namespace+"-"+x.Name] = x
	default:
		panic(fmt.Sprintf("objects of %T are made by other methods", object))
	}
}

// Service is a Service that was set, to be changed; nil if there is none.
func (o *Objects) Service(namespace, name string) *corev1.Service {
	s, _ := o.byFile["service-"+namespace+"-"+name].(*corev1.Service)
	return s
}

// DeleteService removes a Service and its EndpointSlices.
func (o *Objects) DeleteService(namespace, name string) {
	delete(o.byFile, "service-"+namespace+"-"+name)
	maps.DeleteFunc(o.byFile, func(_ string, object runtime.Object) bool {
		s, ok := object.(*discoveryv1.EndpointSlice)
		return ok && s.Namespace == namespace && s.Labels[discoveryv1.LabelServiceName] == name
	})
}

func (o *Objects) addNode(n *Node) {
	status := corev1.NodeStatus{}
	for _, ip := range n.IPs {
		status.Addresses = append(status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip.String()})
	}
	o.byFile["node-"+n.Name] = &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, UID: uid("node", n.Name), Labels: map[string]string{
			corev1.LabelHostname:       n.Name,
			corev1.LabelTopologyRegion: "lab",
			corev1.LabelTopologyZone:   "lab-" + n.Name,
		}},
		Status: status,
	}
}

func (o *Objects) addPod(p *Pod) {
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: p.Namespace, Name: p.Name, UID: types.UID(p.UID), Labels: p.spec.Labels, Annotations: p.spec.Annotations,
		},
		Spec: corev1.PodSpec{NodeName: p.Node.Name},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			PodIP:      p.IPs[0].String(),
			HostIP:     p.Node.IPs[0].String(),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}
	for _, ip := range p.IPs {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip.String()})
	}
	containers := p.spec.Containers
	if len(containers) == 0 {
		containers = []string{"echo"}
	}
	for _, name := range containers {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: name})
	}
	for _, port := range p.spec.Ports {
		pod.Spec.Containers[0].Ports = append(pod.Spec.Containers[0].Ports, corev1.ContainerPort{ContainerPort: port})
	}
	if p.spec.OwnUser {
		pod.Spec.HostUsers = new(bool)
	}
	o.byFile["pod-"+p.Namespace+"-"+p.Name] = pod
}

// SetPodLabels changes the labels of a pod.
func (o *Objects) SetPodLabels(p *Pod, labels map[string]string) {
	p.spec.Labels = labels
	o.addPod(p)
}

// RemovePod removes a pod's object, before or after the pod itself.
func (o *Objects) RemovePod(p *Pod) { delete(o.byFile, "pod-"+p.Namespace+"-"+p.Name) }

// services returns the Services, in no order.
func (o *Objects) services() []*corev1.Service { return ofType[*corev1.Service](o) }

// slices returns the EndpointSlices, in no order.
func (o *Objects) slices() []*discoveryv1.EndpointSlice {
	return ofType[*discoveryv1.EndpointSlice](o)
}

func ofType[T runtime.Object](o *Objects) []T {
	var found []T
	for _, object := range o.byFile {
		if x, ok := object.(T); ok {
			found = append(found, x)
		}
	}
	return found
}

// write makes the directory hold the objects. A file appears and changes in
// one step.
func (o *Objects) write() error {
	for _, name := range slices.Sorted(maps.Keys(o.byFile)) {
		text, err := yaml.Marshal(o.byFile[name])
		if err != nil {
			return fmt.Errorf("write %s as YAML: %w", name, err)
		}
		if bytes.Equal(text, o.written[name]) {
			continue
		}
		// Beside the directory: no watcher is to see a half-written file.
		temporary := o.dir + ".new"
		if err := os.WriteFile(temporary, text, 0o600); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := os.Rename(temporary, filepath.Join(o.dir, name+".yaml")); err != nil {
			return fmt.Errorf("put %s in place: %w", name, err)
		}
		o.written[name] = text
	}
	for name := range o.written {
		if o.byFile[name] == nil {
			if err := os.Remove(filepath.Join(o.dir, name+".yaml")); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
			delete(o.written, name)
		}
	}
	return nil
}

// uid is an id that an object keeps for as long as its name.
func uid(kind, name string) types.UID { return types.UID("uid-" + kind + "-" + name) }
