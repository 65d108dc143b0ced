// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/check"
	"github.com/nodevoy/nodevoy/cmd/internal/commands"
)

// say answers every request with a text.
func say(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) })
}

// command runs one of the plugin's commands.
func (f *fixture) command(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	root := &cobra.Command{SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(f.sites.commands()...)
	root.AddCommand(newPage(f.sites))
	var stdout, stderr bytes.Buffer
	root.SetArgs(args)
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	err := root.ExecuteContext(t.Context())
	if err != nil {
		fmt.Fprintln(&stderr, err)
	}
	return commands.ExitCode(err), stdout.String(), stderr.String()
}

func TestEveryNodeIsInTheAnswer(t *testing.T) {
	f := newFixture(t, say(`{"items":[{"namespace":"shop","name":"web","enrolled":true,"redirected":true,"reason":"label"}]}`))
	code, out, errs := f.command(t, "pods")
	want := "NODE  NAMESPACE  POD  IP  ENROLLED  REDIRECTED  WHY\na     shop       web  -   yes       yes         label\n"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
	for _, line := range []string{"b: no answer: request /v1/pods: nodevoy: the agent is not running on this node\n", "c: no agent\n", "no answer from b\n"} {
		if !strings.Contains(errs, line) {
			t.Errorf("no %q in %s", line, errs)
		}
	}
	if code != commands.ExitNotRunning {
		t.Errorf("exit code %d", code)
	}
	f.set.nodes = []string{"a"}
	if code, _, errs := f.command(t, "pods", "-o", "json"); code != 0 || errs != "" {
		t.Errorf("of the node that answers: exit code %d, %s", code, errs)
	}
	f.set.nodes = []string{"c"}
	if code, _, _ := f.command(t, "pods"); code != commands.ExitNotRunning {
		t.Errorf("of the node without an agent: exit code %d", code)
	}
	f.set.nodes = []string{"x"}
	if code, _, _ := f.command(t, "pods"); code != commands.ExitUsage {
		t.Errorf("of a node that is none: exit code %d", code)
	}
}

func TestCallersAreFoundByName(t *testing.T) {
	f := newFixture(t, say("{}"), web()...)
	for _, tt := range []struct{ words, namespace, want string }{
		{"deploy/web", "shop", "shop/web-1@a shop/web-2@c"},
		{"shop/deployments.apps/web", "default", "shop/web-1@a shop/web-2@c"},
		{"shop/web-1", "default", "shop/web-1@a"},
		{"pod/web-2", "shop", "shop/web-2@c"},
		{"web-1", "shop", "shop/web-1@a"},
	} {
		f.namespace = tt.namespace
		callers, err := f.sites.callers(t.Context(), tt.words)
		if err != nil {
			t.Errorf("%s: %v", tt.words, err)
		}
		var got []string
		for _, c := range callers {
			got = append(got, c.From+"@"+c.Agent.Node)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s in %s: %v, want %s", tt.words, tt.namespace, got, tt.want)
		}
	}
	for words, says := range map[string]string{
		"web-9": "not found", "deploy/none": "not found", "web-3": "on no node yet", "a/b/c": "want [NAMESPACE/]POD", "": "want [NAMESPACE/]POD",
	} {
		f.namespace = "shop"
		if _, err := f.sites.callers(t.Context(), words); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", words, err, says)
		}
	}
	// The fake knows no field selectors.
	f.client = fake.NewClientset()
	if _, err := f.sites.callers(t.Context(), "10.9.9.9"); err == nil || !strings.Contains(err.Error(), "no pod has the address") {
		t.Errorf("of an address that nobody has: %v", err)
	}
}

func TestWhyIsAskedOfThePodsNode(t *testing.T) {
	answers := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		fmt.Fprintf(w, `{"verdict":"fails","sentence":"Calls from %s to %s fail.","from":{"asked":%q},"chain":[{"name":"pod","state":"broken","text":"it breaks here"}]}`, q.Get("from"), q.Get("to"), q.Get("from"))
	})
	f := newFixture(t, answers, web()...)
	code, out, errs := f.command(t, "why", "shop/deploy/web", "svc/api:80")
	if code != commands.ExitBroken || !strings.Contains(errs, `"fails"`) {
		t.Errorf("exit code %d: %s", code, errs)
	}
	for _, text := range []string{"Calls from shop/web-1 to svc/api:80 fail.\n", "broken   pod", "shop/web-2  c     no agent"} {
		if !strings.Contains(out, text) {
			t.Errorf("no %q in\n%s", text, out)
		}
	}
}

func TestStreamsOfNodesAreMerged(t *testing.T) {
	answers := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query(); got.Get("status") != "5xx" || got.Get("namespace") != "" {
			http.Error(w, "wrong query "+r.URL.RawQuery, http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, "event: flow\ndata: {\"id\":7,\"source\":{\"address\":\"\"},\"frontend\":\"\",\"backend\":{\"address\":\"\"},\"status\":503}\n\nevent: lost\ndata: {\"lost\":3}\n\n")
	})
	f := newFixture(t, answers)
	code, out, errs := f.command(t, "flows", "-f", "--status", "5xx", "-o", "json")
	if !strings.Contains(out, `"onNode":"a","id":7`) || strings.Count(out, "\n") != 1 {
		t.Errorf("printed %s", out)
	}
	// The streams ended by themselves, which they shouldn't.
	for _, line := range []string{"3 flows are not listed", "a: no answer: follow /v1/flows: unexpected EOF", "b: no answer", "no answer from a, b"} {
		if !strings.Contains(errs, line) {
			t.Errorf("no %q in %s", line, errs)
		}
	}
	if code != commands.ExitNotRunning {
		t.Errorf("exit code %d", code)
	}
}

func report(node string, at time.Time, level check.Level) string {
	return fmt.Sprintf(`{"node":%q,"at":%q,"installed":true,"lines":[{"level":%q,"topic":"kernel","text":"it is so","do":"change it"}]}`, node, at.Format(time.RFC3339Nano), level)
}

func TestNodesAreCheckedByAgentsAndByPods(t *testing.T) {
	f := newFixture(t, say(""))
	f.set.nodes = []string{"a", "c"}
	f.checks["a"] = report("a", time.Now(), check.Failed)
	client := f.client.(*fake.Clientset)
	client.PrependReactor("create", "namespaces", func(action clienttesting.Action) (bool, k8sruntime.Object, error) {
		ns := action.(clienttesting.CreateAction).GetObject().(*corev1.Namespace)
		ns.Name = "nodevoy-check-x"
		return false, nil, nil
	})
	var made *corev1.Pod
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, k8sruntime.Object, error) {
		made = action.(clienttesting.CreateAction).GetObject().(*corev1.Pod)
		made.Status.Phase = corev1.PodFailed
		return false, nil, nil
	})
	f.sites.checks.timeout = time.Minute
	code, out, errs := f.command(t, "check")
	if code != commands.ExitNotRunning && code != commands.ExitFailed {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(out, "a     failed  kernel  it is so\n                      to do: change it\n") {
		t.Errorf("printed\n%s", out)
	}
	// The fake's logs are no report.
	if !strings.Contains(errs, `c: no answer: the check's pod said "fake logs"`) {
		t.Errorf("said %s", errs)
	}
	if made == nil || made.Spec.NodeName != "c" || made.Spec.Containers[0].Image != "registry/nodevoy:v9" || !made.Spec.HostNetwork {
		t.Errorf("the pod is %+v", made)
	}
	if _, err := f.client.CoreV1().Namespaces().Get(t.Context(), "nodevoy-check-x", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the namespace is still there: %v", err)
	}
}

func TestCheckPodsAreRemovedAfterAnInterrupt(t *testing.T) {
	f := newFixture(t, say(""))
	ctx, interrupt := context.WithCancel(t.Context())
	client := f.client.(*fake.Clientset)
	client.PrependReactor("create", "pods", func(clienttesting.Action) (bool, k8sruntime.Object, error) {
		interrupt()
		return false, nil, nil
	})
	deleted := 0
	client.PrependReactor("delete", "namespaces", func(clienttesting.Action) (bool, k8sruntime.Object, error) {
		deleted++
		return false, nil, nil
	})
	k := &checkPods{timeout: time.Hour, stderr: func() io.Writer { return io.Discard }}
	results := k.run(ctx, f.cluster, nil, []string{"c"})
	if deleted != 1 || results["c"].State != ask.NoAnswer {
		t.Errorf("deleted %d times, results %+v", deleted, results)
	}
}

func TestClocksAreCompared(t *testing.T) {
	c := &clocks{}
	results := make([]ask.Result[check.Report], 3)
	for i, node := range []string{"a", "b", "c"} {
		results[i] = ask.Result[check.Report]{Node: node, Answer: &check.Report{Node: node}}
	}
	c.add("a", 500*time.Millisecond, time.Second)
	// It may have been said at once, or at the end of five seconds.
	c.add("b", 4*time.Second, 5*time.Second)
	c.add("c", 7*time.Second, time.Second)
	c.compare(results)
	for i, want := range []int{0, 0, 1} {
		if got := len(results[i].Answer.Lines); got != want {
			t.Errorf("%s has %d warnings: %+v", results[i].Node, got, results[i].Answer.Lines)
		}
	}
}

func TestThePageIsForwarded(t *testing.T) {
	f := newFixture(t, say("the page"))
	n, err := f.sites.pageNode(t.Context(), nil)
	if err != nil || n.name != "a" {
		t.Fatalf("node %s, %v", n.name, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- forward(ctx, ln, func(ctx context.Context) (net.Conn, error) { return f.dial(ctx, n.agent) }, io.Discard)
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + ln.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil || string(text) != "the page" {
		t.Errorf("got %q, %v", text, err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	f.set.nodes = []string{"c"}
	if _, err := f.sites.pageNode(t.Context(), nil); !errors.Is(err, ask.ErrNotRunning) {
		t.Errorf("the page of a node without an agent: %v", err)
	}
}

func TestTheArchiveNamesNodesThatFail(t *testing.T) {
	f := newFixture(t, say(`{"items":[]}`))
	file := t.TempDir() + "/dump.tar.gz"
	code, _, errs := f.command(t, "dump", "-f", file)
	if code != commands.ExitNotRunning {
		t.Errorf("exit code %d", code)
	}
	for _, line := range []string{"b: not in the archive", "c: not in the archive: ", "no answer from b"} {
		if !strings.Contains(errs, line) {
			t.Errorf("no %q in %s", line, errs)
		}
	}
}

func TestWithoutAClusterTheExitCodeSaysSo(t *testing.T) {
	t.Setenv("KUBECONFIG", t.TempDir()+"/none")
	for args, want := range map[string]int{
		"": 0, "--version": 0, "pods --frobnicate": commands.ExitUsage, "page a b": commands.ExitUsage, "pods": commands.ExitUsage,
		"pods --server http://127.0.0.1:1": commands.ExitFailed, "flows --status 5x": commands.ExitUsage,
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), strings.Fields(args), &out, &errs); code != want {
			t.Errorf("%q: exit code %d, want %d: %s", args, code, want, &errs)
		}
	}
}
