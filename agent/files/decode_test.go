// SPDX-License-Identifier: Apache-2.0

package files

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
)

// read is what decode makes of a whole file: the keys of its objects, and what
// is wrong, one line each.
func read(file, text string) (keys, unread, faults []string) {
	docs, err := split([]byte(text))
	if err != nil {
		return nil, nil, []string{err.Error()}
	}
	decoder := newDecoder(kinds.All())
	for _, doc := range docs {
		d := decoder.decode(file, doc)
		for _, o := range d.objects {
			keys = append(keys, o.key.String())
		}
		unread = append(unread, lines(d.unread)...)
		faults = append(faults, lines(d.faults)...)
	}
	return keys, unread, faults
}

func (k objectKey) String() string {
	if k.namespace == "" {
		return k.kind + " " + k.name
	}
	return k.kind + " " + k.namespace + "/" + k.name
}

func lines(problems []model.Problem) []string {
	var list []string
	for _, p := range problems {
		list = append(list, keyOf(p).String()+": "+p.Field+": "+p.Detail)
	}
	return list
}

func TestDecode(t *testing.T) {
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
	for _, test := range []struct {
		name                 string
		text                 string
		keys, unread, faults []string
	}{
		{name: "empty"},
		{name: "only comments", text: "# nothing\n---\n# here\n"},
		{name: "one", text: service, keys: []string{"Service default/web"}},
		{
			name: "all kinds",
			text: `apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {nodevoy.io/redirect: enabled}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
--- # a comment
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
...
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1}, endpoints: [], ports: [], addressType: IPv4}
`,
			keys: []string{
				"Namespace shop", "Node node-1", "Pod shop/client", "Service shop/web", "EndpointSlice default/web-1",
			},
		},
		{name: "windows", text: "\xef\xbb\xbfapiVersion: v1\r\nkind: Node\r\nmetadata:\r\n  name: a\r\n---\r\n" + service, keys: []string{"Node a", "Service default/web"}},
		{
			name: "marker inside a text",
			text: "apiVersion: v1\nkind: Node\nmetadata:\n  name: a\n  annotations:\n    text: |\n      ---\n      ...\n",
			keys: []string{"Node a"},
		},
		{
			name:   "document after an end",
			text:   service + "...\napiVersion: v1\nkind: Node\nmetadata: {name: a}\n---\n" + service,
			keys:   []string{"Service default/web"},
			faults: []string{`File f.yaml: : holds another document: documents must be separated by lines of "---" (document from line 1)`},
		},
		{
			name:   "document after a line break that only YAML knows",
			text:   "apiVersion: v1\u2028kind: Node\u2028metadata: {name: b}\u2028---\u2028apiVersion: v1\u2028kind: Node\u2028metadata: {name: a}\n---\n" + service,
			keys:   []string{"Service default/web"},
			faults: []string{`File f.yaml: : holds another document: documents must be separated by lines of "---" (document from line 1)`},
		},
		{
			name: "document on its separator's line", text: service + "--- {apiVersion: v1, kind: Node, metadata: {name: a}}\n---\tapiVersion: v1\n" + service,
			keys:   []string{"Service default/web", "Node a"},
			faults: []string{"File f.yaml: : yaml: line 5: mapping values are not allowed in this context (document from line 5)"},
		},
		{
			name: "no separator", text: service + "---\n---apiVersion: v1\nkind: Node\nmetadata: {name: a}\n--- #\n---# a comment\n" + service,
			keys:   []string{"Service default/web", "Service default/web"},
			faults: []string{"Node a: apiVersion: is missing (f.yaml, object from line 5)"},
		},
		{
			name: "dots and dashes in texts", keys: []string{"Node a", "Service default/web"},
			text: "apiVersion: v1\nkind: Node\nmetadata: {name: a, annotations: {x: '... and ---'}}\n...\n---\n" + service,
		},
		{
			name: "UTF-16, little-endian", text: "\xff\xfea\x00:\x00 \x00b\x00", faults: []string{"is not UTF-8 text (it looks like UTF-16 or binary data)"},
		},
		{
			name: "UTF-16, big-endian", text: "\xfe\xff\x00a\x00:\x00 \x00b", faults: []string{"is not UTF-8 text (it looks like UTF-16 or binary data)"},
		},
		{
			name: "UTF-16 without a mark", text: "a\x00:\x00 \x00b\x00", faults: []string{"is not UTF-8 text (it looks like UTF-16 or binary data)"},
		},
		{name: "Latin-1", text: service + "# caf\xe9\n", faults: []string{"is not UTF-8 text"}},
		{
			name: "lines that end with CR", text: strings.ReplaceAll(service+"---\n"+service, "\n", "\r"),
			faults: []string{"line 1: a carriage return without a line feed: lines must end with LF or CRLF"},
		},
		{
			name: "a line that ends with CR", text: service + "---\r" + service,
			faults: []string{"line 4: a carriage return without a line feed: lines must end with LF or CRLF"},
		},
		{
			name: "json", text: `{"apiVersion":"v1","kind":"Node","metadata":{"name":"a"}}`, keys: []string{"Node a"},
		},
		{
			name: "json, one after the other",
			text: `{"apiVersion":"v1","kind":"Node","metadata":{"name":"a"}}` + "\n" + `{"apiVersion":"v1","kind":"Node","metadata":{"name":"b"}}`,
			keys: []string{"Node a", "Node b"},
		},
		{
			name: "list",
			text: "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: a}}\n- {apiVersion: v1, kind: Pod, metadata: {name: p}}\n",
			keys: []string{"Node a", "Pod default/p"},
		},
		{
			name:   "list with an unknown kind",
			text:   "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}}\n- {apiVersion: v1, kind: Node, metadata: {name: a}}\n",
			keys:   []string{"Node a"},
			unread: []string{"Secret s: kind: v1 Secret is not read; ignored (f.yaml, object from line 1, items[0])"},
		},
		{
			name:   "list with a broken item",
			text:   "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: a}}\n- {apiVersion: v1, kind: Node}\n",
			keys:   []string{"Node a"},
			faults: []string{"Node : metadata.name: is missing (f.yaml, object from line 1, items[1])"},
		},
		{
			name: "list with an unknown field", text: "apiVersion: v1\nkind: List\nitem: []\n",
			faults: []string{`List : item: unknown field (f.yaml, object from line 1)`},
		},
		{
			name:   "unknown kinds",
			text:   "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {what: ever}\n---\n" + service,
			keys:   []string{"Service default/web"},
			unread: []string{"Deployment shop/web: kind: apps/v1 Deployment is not read; ignored (f.yaml, object from line 1)"},
		},
		{
			name:   "known kind of another version",
			text:   "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: web}\n",
			unread: []string{"EndpointSlice web: kind: discovery.k8s.io/v1beta1 EndpointSlice is not read; ignored (f.yaml, object from line 1)"},
		},
		{
			name: "unknown field", text: service + "spec: {ports: [{name: http, prot: 80}]}\n",
			faults: []string{`Service default/web: spec.ports[0].prot: unknown field (f.yaml, object from line 1)`},
		},
		{
			name: "case matters", text: service + "Spec: {}\n",
			faults: []string{`Service default/web: Spec: unknown field (f.yaml, object from line 1)`},
		},
		{
			name: "wrong type", text: "---\n" + service + "spec: {ports: [{name: http, port: eighty}]}\n",
			faults: []string{"Service default/web: spec.ports.port: must be a whole number, not string (f.yaml, object from line 2)"},
		},
		{
			name: "yes is not a text in YAML", text: "\n\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {nodevoy.io/redirect: yes}}\n",
			faults: []string{"Namespace shop: metadata.labels: must be a string, not bool (f.yaml, object from line 4)"},
		},
		{
			name: "field twice", text: service + "spec: {}\nspec: {}\n",
			faults: []string{`File f.yaml: : yaml: unmarshal errors:
  line 5: key "spec" already set in map (document from line 1)`},
		},
		{
			name: "field twice in json", text: `{"apiVersion":"v1","kind":"Node","kind":"Node","metadata":{"name":"a"}}`,
			faults: []string{`Node a: kind: duplicate field (f.yaml, object from line 1)`},
		},
		{
			name: "no name", text: "apiVersion: v1\nkind: Service\nmetadata: {namespace: shop}\n",
			faults: []string{"Service shop/: metadata.name: is missing (f.yaml, object from line 1)"},
		},
		{
			name: "a name of two lines", text: "apiVersion: v1\nkind: Pod\nmetadata: {name: \"a\\nb\"}\n",
			faults: []string{"Pod default/a\nb: metadata.name: is no name of an object (f.yaml, object from line 1)"},
		},
		{
			name: "a namespace that can't be", text: "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: 'a/b'}\n",
			faults: []string{"Pod a/b/a: metadata.namespace: is no name of a namespace (f.yaml, object from line 1)"},
		},
		{
			name: "namespace of a namespace", text: "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, namespace: shop}\n",
			faults: []string{"Namespace shop/shop: metadata.namespace: is set, but a Namespace is in no namespace (f.yaml, object from line 1)"},
		},
		{name: "no kind", text: "apiVersion: v1\n", faults: []string{"File f.yaml: kind: is missing (f.yaml, object from line 1)"}},
		{
			name: "no apiVersion", text: "kind: Service\nmetadata: {name: web}\n",
			faults: []string{"Service web: apiVersion: is missing (f.yaml, object from line 1)"},
		},
		{
			name: "not an object", text: "- a\n- b\n",
			faults: []string{"File f.yaml: : must be an object, not array (f.yaml, object from line 1)"},
		},
		{
			name: "not YAML", text: service + "---\na: b\n\tx: [\n",
			keys:   []string{"Service default/web"},
			faults: []string{"File f.yaml: : yaml: line 6: found a tab character that violates indentation (document from line 5)"},
		},
		{
			name: "truncated json", text: `{"apiVersion":"v1","kind":"Node","metadata":{"name":"a"`,
			faults: []string{"File f.yaml: : yaml: line 1: did not find expected ',' or '}' (document from line 1)"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			keys, unread, faults := read("f.yaml", test.text)
			if diff := cmp.Diff(test.keys, keys); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.unread, unread); diff != "" {
				t.Errorf("unread (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.faults, faults); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeFillsInTheNamespace(t *testing.T) {
	d := newDecoder(kinds.All()).decode("f.yaml", document{text: []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"), line: 1})
	if got := d.objects[0].value.GetNamespace(); got != "default" {
		t.Errorf("namespace %q, want default", got)
	}
}

// FuzzDecode feeds any text: it must not panic, and what it says must be whole.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"", "---\n...\n", "{}", "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{}]}", "a: &a [*a]\n", "? x\n: y\n",
		"apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {a: b}}\nstatus: {podIPs: [{ip: 10.0.0.1}]}\n",
		"apiVersion: v1\nkind: List\nitems:\n- apiVersion: discovery.k8s.io/v1\n  kind: EndpointSlice\n  metadata: {name: e}\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 99999999999999999999}]}\n",
		"%YAML 1.2\n---\nkind: x\n", "\xff\xfe", "!!binary x", "1: 2\n", "{\"a\":1}]",
	} {
		f.Add([]byte(seed))
	}
	decoder := newDecoder(kinds.All())
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := split(data)
		if err != nil && len(docs) > 0 {
			t.Fatalf("error %v, and yet %d documents", err, len(docs))
		}
		for _, doc := range docs {
			if doc.line < 1 || len(doc.text) == 0 {
				t.Fatalf("document %+v", doc)
			}
			d := decoder.decode("f.yaml", doc)
			for _, o := range d.objects {
				checkObject(t, o)
			}
			for _, p := range append(d.faults, d.unread...) {
				if p.Detail == "" {
					t.Fatalf("problem without a detail: %+v", p)
				}
			}
		}
	})
}

func checkObject(t *testing.T, o object) {
	t.Helper()
	if o.value.GetName() == "" || o.value.GetName() != o.key.name || o.value.GetNamespace() != o.key.namespace {
		t.Fatalf("object %s is %s/%s", o.key, o.value.GetNamespace(), o.value.GetName())
	}
	switch o.value.(type) {
	case *corev1.Pod, *corev1.Service, *discoveryv1.EndpointSlice:
		if o.key.namespace == "" {
			t.Fatalf("object %s has no namespace", o.key)
		}
	}
}
