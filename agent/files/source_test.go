// SPDX-License-Identifier: Apache-2.0

package files_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/nodevoy/nodevoy/agent/files"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/test/sourcetest"
)

// never is how often a source looks unasked in tests of what it is told.
const never = time.Hour

// running is a source of a directory, followed until the test ends.
type running struct {
	*files.Source
	dir  string
	logs *observer.ObservedLogs
}

// start runs a source of these files and waits for its first signal.
func start(t *testing.T, files map[string]string) *running {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	return startIn(t, dir, never)
}

func startIn(t *testing.T, dir string, reread time.Duration) *running {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	source, err := files.New(dir, "node-1", zap.New(core))
	if err != nil {
		t.Fatalf("make source: %v", err)
	}
	source.RereadEvery(reread)
	sourcetest.Until(t, source.Run)
	r := &running{Source: source, dir: dir, logs: logs}
	select {
	case <-source.Changed():
	case <-time.After(10 * time.Second):
		t.Fatal("no first signal within 10 s")
	}
	return r
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// services is a file of Services of these names.
func services(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\n", name)
	}
	return b.String()
}

// state is the names of the Services, and the problems, one line each.
type state struct{ Services, Problems []string }

func (r *running) state() state {
	var s state
	for _, svc := range r.Inputs().Services {
		s.Services = append(s.Services, svc.Name)
	}
	for _, p := range r.Problems() {
		s.Problems = append(s.Problems, strings.Join([]string{p.Kind, p.Namespace, p.Name, p.Field, p.Detail}, "|"))
	}
	slices.Sort(s.Services)
	return s
}

// await waits for the state, woken by the source's signal alone.
func (r *running) await(t *testing.T, why string, want state) {
	t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		diff := cmp.Diff(want, r.state())
		if diff == "" {
			return
		}
		select {
		case <-r.Changed():
		case <-deadline:
			t.Fatalf("%s (-want +got):\n%s", why, diff)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file.yaml")
	write(t, file, "")
	for _, test := range []struct{ name, dir, node, want string }{
		{"no directory", filepath.Join(dir, "none"), "n", "open objects directory: stat " + filepath.Join(dir, "none") + ": no such file or directory"},
		{"a file", file, "n", "open objects directory: " + file + " is not a directory"},
		{"no node name", dir, "", "files: the node's name is empty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := files.New(test.dir, test.node, zap.NewNop()); err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if _, _, err := files.Load(test.dir, test.node); err == nil || err.Error() != test.want {
				t.Errorf("Load: got %v, want %s", err, test.want)
			}
		})
	}
}

func TestRunFailsWithoutItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	source, err := files.New(dir, "node-1", zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := source.Run(t.Context()); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want an error naming %s", err, dir)
	}
	if len(source.Changed()) > 0 {
		t.Error("signalled a change that was none")
	}
	if got := source.Inputs(); got.NodeName != "node-1" || len(got.Services) > 0 {
		t.Errorf("inputs %v", got)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), services("one")+`---
{apiVersion: v1, kind: Node, metadata: {name: node-1}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: here}, spec: {nodeName: node-1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: there}, spec: {nodeName: node-2}}
`)
	write(t, filepath.Join(dir, "b.json"), `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}`)
	write(t, filepath.Join(dir, "c.yml"), services("two"))
	write(t, filepath.Join(dir, ".hidden.yaml"), "broken: [")
	write(t, filepath.Join(dir, "d.yaml~"), "broken: [")
	write(t, filepath.Join(dir, "README"), "broken: [")
	if err := os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling.yaml")); err != nil {
		t.Fatal(err)
	}
	inputs, problems, err := files.Load(dir, "node-1")
	if err != nil || len(problems) > 0 {
		t.Fatalf("problems %v, error %v", problems, err)
	}
	var got []string
	for _, o := range inputs.Services {
		got = append(got, o.Name)
	}
	for _, o := range inputs.Pods {
		got = append(got, o.Name)
	}
	for _, o := range inputs.Namespaces {
		got = append(got, o.Name)
	}
	got = append(got, inputs.Node.Name, inputs.NodeName)
	if diff := cmp.Diff([]string{"one", "two", "here", "shop", "node-1", "node-1"}, got); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
}

func TestBrokenDocumentKeepsItsLastGoodVersion(t *testing.T) {
	r := start(t, map[string]string{"a.yaml": services("a1", "a2"), "b.yaml": services("b1")})
	r.await(t, "start", state{Services: []string{"a1", "a2", "b1"}})

	// Of the file, a1 is deleted, a2 is broken, a3 is new, and a4 is new and broken.
	const broken = "spec: {prots: []}\n"
	write(t, filepath.Join(r.dir, "a.yaml"), services("a2")+broken+services("a3", "a4")+broken)
	faults := []string{
		`Service|default|a2|spec.prots|unknown field (a.yaml, object from line 2); its last good version stays in force`,
		`Service|default|a4|spec.prots|unknown field (a.yaml, object from line 11); it is not used`,
	}
	r.await(t, "a2 and a4 broken", state{Services: []string{"a2", "a3", "b1"}, Problems: faults})

	write(t, filepath.Join(r.dir, "b.yaml"), services("b2"))
	r.await(t, "b changed, a still broken", state{Services: []string{"a2", "a3", "b2"}, Problems: faults})
	if n := r.logs.FilterMessageSnippet("faults").Len(); n != 1 {
		t.Errorf("%d log lines about the broken file, want 1: %v", n, r.logs.All())
	}

	// Which object is broken can't be told: it is one of those that are missing.
	write(t, filepath.Join(r.dir, "a.yaml"), services("a5")+"---\nnothing: [")
	r.await(t, "a document that is no YAML", state{
		Services: []string{"a2", "a3", "a5", "b2"},
		Problems: []string{"File||a.yaml||yaml: line 6: did not find expected node content (document from line 6); objects that are now missing from a.yaml stay in force"},
	})

	write(t, filepath.Join(r.dir, "a.yaml"), strings.ReplaceAll(services("a6"), "\n", "\r"))
	r.await(t, "a file that can't be separated", state{
		Services: []string{"a2", "a3", "a5", "b2"},
		Problems: []string{"File||a.yaml||line 1: a carriage return without a line feed: lines must end with LF or CRLF; what was last read of a.yaml stays in force"},
	})

	write(t, filepath.Join(r.dir, "a.yaml"), services("a3"))
	r.await(t, "a mended", state{Services: []string{"a3", "b2"}})

	write(t, filepath.Join(r.dir, "a.yaml"), services("a4")+"---\nkind: [\n")
	if err := os.Remove(filepath.Join(r.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	r.await(t, "a removed", state{Services: []string{"b2"}})
}

func TestFileBrokenFromTheStart(t *testing.T) {
	r := start(t, map[string]string{
		"a.yaml": services("a1") + "---\n\nkind: Service\n" + services("a2"), "b.yaml": services("b1"),
		"c.yaml": "\xff\xfek\x00", "d.yaml": "kind: [\n",
	})
	r.await(t, "start", state{
		Services: []string{"a1", "a2", "b1"},
		Problems: []string{
			"Service|||apiVersion|is missing (a.yaml, object from line 7); it is not used",
			"File||c.yaml||is not UTF-8 text (it looks like UTF-16 or binary data); nothing of c.yaml is used",
			"File||d.yaml||yaml: line 1: did not find expected node content (document from line 1); it is not used",
		},
	})
	write(t, filepath.Join(r.dir, "a.yaml"), services("a1"))
	write(t, filepath.Join(r.dir, "c.yaml"), "")
	write(t, filepath.Join(r.dir, "d.yaml"), "")
	r.await(t, "mended", state{Services: []string{"a1", "b1"}})
}

// TestUnchangedObjectsKeepTheirPointer changes a document, moves another to
// another line, and breaks a third.
func TestUnchangedObjectsKeepTheirPointer(t *testing.T) {
	r := start(t, map[string]string{"a.yaml": services("a1", "a2", "a3"), "b.yaml": services("b1")})
	before := map[string]*service{}
	for _, s := range r.Inputs().Services {
		before[s.Name] = s
	}
	write(t, filepath.Join(r.dir, "a.yaml"), services("a1")+"spec: {clusterIP: 10.96.0.1}\n"+services("a2", "a3")+"spec: {prots: []}\n")
	r.await(t, "changed", state{Services: []string{"a1", "a2", "a3", "b1"}, Problems: []string{
		"Service|default|a3|spec.prots|unknown field (a.yaml, object from line 11); its last good version stays in force",
	}})
	for _, s := range r.Inputs().Services {
		if same := before[s.Name] == s; same == (s.Name == "a1") {
			t.Errorf("%s is the same object: %v", s.Name, same)
		}
	}
}

func TestUnknownKindsAreToldAndTheRestIsRead(t *testing.T) {
	r := start(t, map[string]string{"a.yaml": services("a1") + "---\n \n{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n"})
	r.await(t, "start", state{
		Services: []string{"a1"},
		Problems: []string{"ConfigMap||c|kind|v1 ConfigMap is not read; ignored (a.yaml, object from line 7)"},
	})
	if n := r.logs.Len(); n != 0 {
		t.Errorf("logged %v", r.logs.All())
	}
}

func TestObjectInTwoFiles(t *testing.T) {
	labelled := func(name, value string) string {
		return strings.Replace(services(name), "}", ", labels: {from: "+value+"}}", 1)
	}
	r := start(t, map[string]string{"b.yaml": labelled("web", "b"), "a.yaml": services("other"), "c.yaml": labelled("web", "c")})
	twice := state{
		Services: []string{"other", "web"},
		Problems: []string{"Service|default|web||is in b.yaml line 2 and again in c.yaml line 2; the first one counts"},
	}
	r.await(t, "start", twice)
	from := func() string {
		i := slices.IndexFunc(r.Inputs().Services, func(s *service) bool { return s.Name == "web" })
		return r.Inputs().Services[i].Labels["from"]
	}
	if got := from(); got != "b" {
		t.Errorf("web is from %s, want b", got)
	}
	write(t, filepath.Join(r.dir, "a.yaml"), services("other", "other"))
	r.await(t, "twice in one file", state{Services: twice.Services, Problems: append([]string{
		"Service|default|other||is in a.yaml line 2 and again in a.yaml line 6; the first one counts",
	}, twice.Problems...)})
	if err := os.Remove(filepath.Join(r.dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(r.dir, "a.yaml"), services("other"))
	r.await(t, "one left", state{Services: []string{"other", "web"}})
	if got := from(); got != "c" {
		t.Errorf("web is from %s, want c", got)
	}
}

func TestProblemsAreTheModels(t *testing.T) {
	r := start(t, map[string]string{"a.yaml": "kind: [\n"})
	want := []model.Problem{{
		Kind: "File", Name: "a.yaml",
		Detail: "yaml: line 1: did not find expected node content (document from line 1); it is not used",
	}}
	if diff := cmp.Diff(want, r.Problems()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}
