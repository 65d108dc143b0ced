// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/agent/model"
)

// objectKey names one object of the kinds that are read.
type objectKey struct{ kind, namespace, name string }

func (k objectKey) String() string {
	if k.namespace == "" {
		return k.kind + " " + k.name
	}
	return k.kind + " " + k.namespace + "/" + k.name
}

// object is one decoded object: a pointer to a corev1.Namespace, Node, Pod or
// Service, or to a discoveryv1.EndpointSlice.
type object struct {
	key   objectKey
	value metav1.Object
}

// decoded is what a document holds.
type decoded struct {
	objects []object
	// unread are objects of other kinds, which don't spoil the document.
	unread []model.Problem
	// faults are what is wrong with it; a document with faults has no objects.
	faults []model.Problem
}

// fault adds one; the place is where in the file to look.
func (d *decoded) fault(key objectKey, field, detail, place string) {
	d.faults = append(d.faults, model.Problem{
		Kind: key.kind, Namespace: key.namespace, Name: key.name, Field: field, Detail: detail + " (" + place + ")",
	})
}

// head is the part that all kinds, and List, have in common.
type head struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   headMeta `json:"metadata"`
}

type headMeta struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// list is a v1 List, strictly.
type list struct {
	metav1.TypeMeta `json:",inline"`

	Metadata metav1.ListMeta   `json:"metadata"`
	Items    []json.RawMessage `json:"items"`
}

// kindFile is the kind of Problems with the file as such.
const kindFile = "File"

// decode reads the document of the named file. It never panics, whatever the
// text.
func decode(file string, doc document) decoded {
	var d decoded
	text := doc.text
	place := file + ", object from " + doc.at()
	if !doc.json {
		var err error
		if text, err = yamlToJSON(doc.text); err != nil {
			// Once more, further down, for the file's own line numbers.
			if _, again := yamlToJSON(append(bytes.Repeat([]byte("\n"), doc.line-1), doc.text...)); again != nil {
				err = again
			}
			d.fault(objectKey{kind: kindFile, name: file}, "", err.Error(), "document from "+doc.at())
			return d
		}
	}
	if string(text) == "null" {
		return d // comments only
	}
	d.object(file, place, text)
	if len(d.faults) > 0 {
		d.objects = nil
	}
	return d
}

// yamlToJSON converts one YAML document. The YAML library recovers from its
// own panics only where it expects them.
func yamlToJSON(text []byte) (converted []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("convert YAML: %v", r)
		}
	}()
	return yaml.YAMLToJSONStrict(text)
}

// object decodes one object, or the items of a List, from JSON.
func (d *decoded) object(file, place string, text []byte) {
	var h head
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &h); err != nil {
		field, detail := inWords(err)
		d.fault(objectKey{kind: kindFile, name: file}, field, detail, place)
		return
	}
	key := objectKey{kind: h.Kind, namespace: h.Metadata.Namespace, name: h.Metadata.Name}
	switch {
	case h.Kind == "":
		d.fault(objectKey{kind: kindFile, name: file}, "kind", "is missing", place)
		return
	case h.APIVersion == "":
		d.fault(key, "apiVersion", "is missing", place)
		return
	case h.APIVersion == "v1" && h.Kind == "List":
		d.list(file, place, text)
		return
	}
	value, namespaced := newObject(h.APIVersion, h.Kind)
	if value == nil {
		d.unread = append(d.unread, model.Problem{
			Kind: key.kind, Namespace: key.namespace, Name: key.name, Field: "kind",
			Detail: h.APIVersion + " " + h.Kind + " is not read; ignored (" + place + ")",
		})
		return
	}
	if namespaced && key.namespace == "" {
		key.namespace = metav1.NamespaceDefault
	}
	if !d.strict(key, place, text, value) {
		return
	}
	switch {
	case key.name == "":
		d.fault(key, "metadata.name", "is missing", place)
		return
	case !namespaced && key.namespace != "":
		d.fault(key, "metadata.namespace", "is set, but a "+key.kind+" is in no namespace", place)
		return
	}
	value.SetNamespace(key.namespace)
	d.objects = append(d.objects, object{key: key, value: value})
}

func (d *decoded) list(file, place string, text []byte) {
	var l list
	if !d.strict(objectKey{kind: "List"}, place, text, &l) {
		return
	}
	for i, item := range l.Items {
		d.object(file, fmt.Sprintf("%s, items[%d]", place, i), item)
	}
}

// newObject is an empty object of a kind that is read; nil for all others.
func newObject(apiVersion, kind string) (value metav1.Object, namespaced bool) {
	switch apiVersion + " " + kind {
	case "v1 Namespace":
		return &corev1.Namespace{}, false
	case "v1 Node":
		return &corev1.Node{}, false
	case "v1 Pod":
		return &corev1.Pod{}, true
	case "v1 Service":
		return &corev1.Service{}, true
	case "discovery.k8s.io/v1 EndpointSlice":
		return &discoveryv1.EndpointSlice{}, true
	default:
		return nil, false
	}
}

// strict decodes into value and turns every error, unknown and repeated fields
// included, into a fault; false when there was one.
func (d *decoded) strict(key objectKey, place string, text []byte, value any) bool {
	strictErrors, err := kjson.UnmarshalStrict(text, value)
	if err != nil {
		field, detail := inWords(err)
		d.fault(key, field, detail, place)
		return false
	}
	for _, err := range strictErrors {
		var field string
		detail := err.Error()
		if fieldError, ok := errors.AsType[kjson.FieldError](err); ok {
			field = fieldError.FieldPath()
			detail = strings.TrimSuffix(detail, fmt.Sprintf(" %q", field)) // once is enough
		}
		d.fault(key, field, detail, place)
	}
	return len(strictErrors) == 0
}

// inWords says in a user's words why a text can't be decoded, and names the
// field when it is one.
func inWords(err error) (field, detail string) {
	typeError, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return "", err.Error()
	}
	wanted := "something else"
	if typeError.Type != nil {
		switch kind := typeError.Type.Kind(); {
		case kind >= reflect.Int && kind <= reflect.Uint64:
			wanted = "a whole number"
		case kind == reflect.Slice, kind == reflect.Array:
			wanted = "a list"
		case kind == reflect.Struct, kind == reflect.Map:
			wanted = "an object"
		default:
			wanted = "a " + kind.String()
		}
	}
	return typeError.Field, "must be " + wanted + ", not " + typeError.Value
}
