// SPDX-License-Identifier: Apache-2.0

package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/validation"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
)

// objectKey names one object of the kinds that are read.
type objectKey struct{ kind, namespace, name string }

// problem is one with the object.
func (k objectKey) problem(field, detail string) model.Problem {
	return model.Problem{Kind: k.kind, Namespace: k.namespace, Name: k.name, Field: field, Detail: detail}
}

// keyOf is the object that a problem is about.
func keyOf(p model.Problem) objectKey { return objectKey{p.Kind, p.Namespace, p.Name} }

// object is one decoded object.
type object struct {
	key   objectKey
	kind  *kinds.Kind
	value kinds.Object
}

// decoded is what a document holds.
type decoded struct {
	objects []object
	// unread are objects of other kinds, faults those that can't be used as
	// written. It may not be known which object a fault is about.
	unread, faults []model.Problem
}

// identified says whether it is known which object the fault is about.
func identified(fault model.Problem) bool { return fault.Kind != kindFile && fault.Name != "" }

// head is the part that all kinds, and List, have in common.
type head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
}

// kindFile is the kind of Problems with the file as such.
const kindFile = "File"

// listKind is that of a list of objects of any kinds.
func listKind() schema.GroupVersionKind { return corev1.SchemeGroupVersion.WithKind("List") }

// decoder decodes objects of the kinds in the table.
type decoder struct {
	kinds map[schema.GroupVersionKind]*kinds.Kind
	codec runtime.Decoder
}

func newDecoder(all []kinds.Kind) *decoder {
	d := &decoder{kinds: make(map[schema.GroupVersionKind]*kinds.Kind, len(all))}
	for i := range all {
		d.kinds[all[i].GroupVersionKind] = &all[i]
	}
	scheme := kinds.Scheme(all)
	scheme.AddKnownTypeWithName(listKind(), &metav1.List{})
	d.codec = serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme, scheme, serializer.SerializerOptions{Strict: true})
	return d
}

// reading is the decoding of one document.
type reading struct {
	*decoder
	decoded
	file string
}

// decode reads the document of the named file. It never panics, whatever the
// text.
func (d *decoder) decode(file string, doc document) decoded {
	r := reading{decoder: d, file: file}
	text := doc.text
	if !doc.json {
		var err error
		if text, err = yamlToJSON(doc.text); err != nil {
			// Once more, further down, for the file's own line numbers.
			if _, again := yamlToJSON(append(bytes.Repeat([]byte("\n"), doc.line-1), doc.text...)); again != nil {
				err = again
			}
			r.fault(objectKey{kind: kindFile, name: file}, "", err.Error(), "document from "+doc.at())
			return r.decoded
		}
	}
	if string(text) == "null" {
		return r.decoded // comments only
	}
	r.object(file+", object from "+doc.at(), text)
	return r.decoded
}

// yamlToJSON converts one YAML document. The YAML library recovers from its
// own panics only where it expects them.
func yamlToJSON(text []byte) (converted []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("convert YAML: %v", r)
		}
	}()
	if err := checkSingle(text); err != nil {
		return nil, err
	}
	return yaml.YAMLToJSONStrict(text)
}

// fault adds what is wrong with an object; place is where in the file to look.
func (r *reading) fault(key objectKey, field, detail, place string) {
	r.faults = append(r.faults, key.problem(field, detail+" ("+place+")"))
}

// object decodes one object, or the items of a List, from JSON.
func (r *reading) object(place string, text []byte) {
	var h head
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &h); err != nil {
		field, detail := explain(err)
		r.fault(objectKey{kind: kindFile, name: r.file}, field, detail, place)
		return
	}
	key := objectKey{kind: h.Kind, namespace: h.Metadata.Namespace, name: h.Metadata.Name}
	gvk := schema.FromAPIVersionAndKind(h.APIVersion, h.Kind)
	switch {
	case h.Kind == "":
		r.fault(objectKey{kind: kindFile, name: r.file}, "kind", "is missing", place)
		return
	case h.APIVersion == "":
		r.fault(key, "apiVersion", "is missing", place)
		return
	case gvk == listKind():
		r.list(place, text)
		return
	}
	kind := r.kinds[gvk]
	if kind == nil {
		r.unread = append(r.unread, key.problem("kind", h.APIVersion+" "+h.Kind+" is not read; ignored ("+place+")"))
		return
	}
	if kind.Namespaced && key.namespace == "" {
		key.namespace = metav1.NamespaceDefault
	}
	value := kind.New()
	if !r.strict(key, place, text, value) {
		return
	}
	switch {
	case key.name == "":
		r.fault(key, "metadata.name", "is missing", place)
		return
	case len(validation.IsDNS1123Subdomain(key.name)) > 0:
		// Whatever comes after would show it to people and write it into logs.
		r.fault(key, "metadata.name", "is no name of an object", place)
		return
	case key.namespace != "" && len(validation.IsDNS1123Label(key.namespace)) > 0:
		r.fault(key, "metadata.namespace", "is no name of a namespace", place)
		return
	case !kind.Namespaced && key.namespace != "":
		r.fault(key, "metadata.namespace", "is set, but a "+key.kind+" is in no namespace", place)
		return
	}
	value.SetNamespace(key.namespace)
	r.objects = append(r.objects, object{key: key, kind: kind, value: value})
}

func (r *reading) list(place string, text []byte) {
	var l metav1.List
	if !r.strict(objectKey{kind: "List"}, place, text, &l) {
		return
	}
	for i, item := range l.Items {
		r.object(fmt.Sprintf("%s, items[%d]", place, i), item.Raw)
	}
}

// strict decodes into value and turns every error, unknown and repeated fields
// included, into a fault; false when there was one.
func (r *reading) strict(key objectKey, place string, text []byte, value runtime.Object) bool {
	_, _, err := r.codec.Decode(text, nil, value)
	if err == nil {
		return true
	}
	strict, ok := runtime.AsStrictDecodingError(err)
	if !ok {
		field, detail := explain(err)
		r.fault(key, field, detail, place)
		return false
	}
	for _, err := range strict.Errors() {
		var field string
		detail := err.Error()
		if fieldError, ok := errors.AsType[kjson.FieldError](err); ok {
			field = fieldError.FieldPath()
			detail = strings.TrimSuffix(detail, fmt.Sprintf(" %q", field)) // once is enough
		}
		r.fault(key, field, detail, place)
	}
	return false
}

// explain says in a user's words why a text can't be decoded, and names the
// field when it is one.
func explain(err error) (field, detail string) {
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
