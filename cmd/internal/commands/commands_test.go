// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/check"
)

// node is a server that answers paths with texts; a path without one is not found.
func node(t *testing.T, name string, answers map[string]string) ask.Agent {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, is := answers[r.URL.Path]
		if !is {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(srv.Close)
	a := ask.New(name, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	})
	t.Cleanup(a.Close)
	return a
}

// run runs a command of a site with these agents.
func run(t *testing.T, agents []ask.Agent, args ...string) (code int, out, errs string) {
	t.Helper()
	site := &Site{
		One: len(agents) == 1, Version: "v1", Now: time.Now, Namespace: func() string { return "" },
		Agents: func(context.Context) ([]ask.Agent, error) { return agents, nil },
		Callers: func(_ context.Context, words string) ([]Caller, error) {
			var all []Caller
			for _, a := range agents {
				all = append(all, Caller{words, a})
			}
			return all, nil
		},
		Check: func(context.Context) ([]ask.Result[check.Report], error) {
			r := check.Report{Node: "a", Lines: []check.Line{{Level: check.OK, Topic: "node", Text: "fine"}, {Level: check.Failed, Topic: "mode", Text: "no ipset", Do: "modprobe ip_set"}}}
			return []ask.Result[check.Report]{{Node: "a", State: ask.Answered, Answer: &r}}, nil
		},
	}
	root := &cobra.Command{SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(All(site)...)
	var stdout, stderr bytes.Buffer
	root.SetArgs(args)
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	err := root.ExecuteContext(t.Context())
	if err != nil {
		fmt.Fprintln(&stderr, err)
	}
	return ExitCode(err), stdout.String(), stderr.String()
}

const (
	last = `{"items":[
{"id":1,"time":"2026-11-21T10:00:00Z","origin":"envoy","source":{"address":"10.0.0.1:99","namespace":"shop","pod":"web"},"frontend":"10.96.0.1:80","service":{"namespace":"shop","name":"api","port":"http"},"backend":{"address":"10.0.0.2:80","namespace":"shop","pod":"api-1","node":"b"},"protocol":"HTTP/1.1","method":"GET","path":"/x","status":503,"grpcStatus":-1,"flags":[{"flag":"UC"}],"durationMs":12.4},
{"id":2,"time":"2026-11-21T10:00:02Z","origin":"kernel","open":true,"source":{"address":"10.0.0.1:98"},"frontend":"10.96.0.9:5432","backend":{"address":"10.0.0.3:5432"},"protocol":"TCP","grpcStatus":-1}],
"added":2,"size":100,"lost":{"sampled":4}}`
	answer = `{"verdict":%q,"sentence":"It is so.","from":{"asked":"shop/web"},"chain":[{"name":"pod","state":"ok","text":"enrolled"}]}`
)

func TestFlowsForPeople(t *testing.T) {
	t.Setenv("TZ", "UTC")
	code, out, errs := run(t, []ask.Agent{node(t, "a", map[string]string{"/v1/flows": last})}, "flows")
	local := func(second int) string {
		return time.Date(2026, 11, 21, 10, 0, second, 0, time.UTC).Local().Format("15:04:05.000")
	}
	want := `TIME          FROM         TO              BACKEND        ON  SEEN BY  PROTOCOL  STATUS  TOOK  WHAT
` + local(0) + `  shop/web     shop/api/http   shop/api-1     b   envoy    HTTP/1.1  503     12ms  GET /x: the backend closed the connection
` + local(2) + `  10.0.0.1:98  10.96.0.9:5432  10.0.0.3:5432  -   kernel   TCP       -       open  -
`
	if diff := cmp.Diff(want, out); diff != "" || code != 0 {
		t.Errorf("exit code %d, %s", code, diff)
	}
	if errs != "4 flows are not listed: there were too many at a time\n" {
		t.Errorf("said %q", errs)
	}
}

func TestNamesAreQualified(t *testing.T) {
	for _, tt := range []struct{ name, namespace, want string }{
		{"web", "shop", "shop/web"},
		{"deploy/web", "shop", "shop/web"},
		{"other/deploy/web", "shop", "other/web"},
		{"other/web", "", "other/web"},
		{"svc/api", "shop", "shop/api"},
		{"shop/api/http", "other", "shop/api/http"},
		{"10.0.0.1", "shop", "10.0.0.1"},
		{"[fd00::1]:80", "shop", "[fd00::1]:80"},
		{"", "shop", ""},
	} {
		if got := qualified(tt.name, tt.namespace); got != tt.want {
			t.Errorf("%q in %q is %q, want %q", tt.name, tt.namespace, got, tt.want)
		}
	}
	if code, _, errs := run(t, []ask.Agent{ask.Absent("a")}, "flows", "--from", "web"); code != ExitUsage || !strings.Contains(errs, "write NAMESPACE/web") {
		t.Errorf("a name without a namespace: exit code %d, %s", code, errs)
	}
}

func TestFlowsOfNodesAreInTheOrderOfTheirTime(t *testing.T) {
	later := strings.ReplaceAll(last, "2026-11-21T10:00:00Z", "2026-11-21T10:00:01Z")
	both := []ask.Agent{node(t, "a", map[string]string{"/v1/flows": last}), node(t, "b", map[string]string{"/v1/flows": later})}
	_, out, _ := run(t, both, "flows", "-o", "json", "--last", "3")
	var order []string
	for line := range strings.Lines(out) {
		order = append(order, line[:len(`{"onNode":"a","id":1`)])
	}
	if diff := cmp.Diff([]string{`{"onNode":"b","id":1`, `{"onNode":"a","id":2`, `{"onNode":"b","id":2`}, order); diff != "" {
		t.Error(diff)
	}
}

func TestTheVerdictIsTheExitCode(t *testing.T) {
	for verdict, want := range map[string]int{"envoy": 0, "untouched": 0, "bypassed": ExitBroken, "fails": ExitBroken, "unknown": ExitUnsure} {
		code, out, _ := run(t, []ask.Agent{node(t, "", map[string]string{"/v1/why": fmt.Sprintf(answer, verdict)})}, "why", "shop/web", "api:80")
		if code != want || !strings.HasPrefix(out, "It is so.\n") {
			t.Errorf("%s: exit code %d, want %d: %s", verdict, code, want, out)
		}
	}
}

func TestOnePodSpeaksForAllThatAreAlike(t *testing.T) {
	agents := []ask.Agent{node(t, "a", map[string]string{"/v1/why": fmt.Sprintf(answer, "envoy")}), node(t, "b", map[string]string{"/v1/why": fmt.Sprintf(answer, "unknown")}), ask.Absent("c")}
	code, out, errs := run(t, agents, "why", "--from", "deploy/web", "--to", "api:80")
	if code != ExitUnsure || errs != "c: no agent\nthe verdict on calls from shop/web is \"unknown\"\n" {
		t.Errorf("exit code %d, %s", code, errs)
	}
	if strings.Count(out, "It is so.") != 2 || strings.Count(out, "enrolled") != 1 || !strings.Contains(out, "deploy/web  c     no agent  no agent is running") {
		t.Errorf("printed\n%s", out)
	}
}

func TestCheckFails(t *testing.T) {
	one := []ask.Agent{ask.Absent("a")}
	code, out, _ := run(t, one, "check")
	want := "RESULT  ABOUT  FOUND\nok      node   fine\nfailed  mode   no ipset\n               to do: modprobe ip_set\n"
	if diff := cmp.Diff(want, out); diff != "" || code != ExitFailed {
		t.Errorf("exit code %d, %s", code, diff)
	}
	if _, out, _ := run(t, one, "check", "-q"); strings.Contains(out, "fine") || !strings.Contains(out, "no ipset") {
		t.Errorf("quietly: %s", out)
	}
	if _, out, _ := run(t, one, "check", "-o", "yaml"); !strings.Contains(out, "do: modprobe ip_set") {
		t.Errorf("as YAML: %s", out)
	}
}

func TestTopOfSeveralNodes(t *testing.T) {
	metrics := map[string]string{"/metrics": "# TYPE nodevoy_connections_open gauge\nnodevoy_connections_open{namespace=\"shop\",service=\"db\",port=\"sql\"} 2\n"}
	code, out, errs := run(t, []ask.Agent{node(t, "a", metrics), node(t, "b", metrics), node(t, "c", nil)}, "top", "--interval", "1ms")
	want := "NAMESPACE  SERVICE  PORT  REQ/S  ERRORS  P50  P99  CONN/S  OPEN  CALLERS\nshop       db       sql   -      -       -    -    -       4     -\n"
	if diff := cmp.Diff(want, out); diff != "" {
		t.Error(diff)
	}
	if code != ExitNotRunning || !strings.Contains(errs, "c: no answer: request /metrics: 404") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}

func TestAListInPartsIsWhole(t *testing.T) {
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n++; r.URL.Query().Get("continue") == "" {
			_, _ = io.WriteString(w, `{"items":[{"kind":"cluster","name":"one","state":"accepted"}],"continue":"next"}`)
			return
		}
		_, _ = io.WriteString(w, `{"items":[{"kind":"cluster","name":"two","state":"refused","why":"no such field"}]}`)
	}))
	t.Cleanup(srv.Close)
	a := ask.New("a", func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	})
	t.Cleanup(a.Close)
	_, out, _ := run(t, []ask.Agent{a}, "xds")
	want := "KIND     NAME  STATE     WHY\ncluster  one   accepted  -\ncluster  two   refused   no such field\n"
	if diff := cmp.Diff(want, out); diff != "" || n != 2 {
		t.Errorf("%d requests, %s", n, diff)
	}
}

func TestStatusOfSeveralNodes(t *testing.T) {
	summary := `{"node":"a","phase":"waiting for Envoy","notReady":"Envoy is not connected","redirect":{"mode":"pod","rules":52},"podCount":{"all":9,"enrolled":3,"redirected":1}}`
	agents := []ask.Agent{node(t, "a", map[string]string{"/v1/summary": summary}), ask.Absent("b")}
	code, out, errs := run(t, agents, "status")
	want := "NODE  STATE              MODE  ENROLLED  REDIRECTED  ENVOY          KERNEL    WHY\n" +
		"a     waiting for Envoy  pod   3         1           not connected  52 rules  Envoy is not connected\n"
	if diff := cmp.Diff(want, out); diff != "" || code != 0 || errs != "b: no agent\n" {
		t.Errorf("exit code %d, said %q: %s", code, errs, diff)
	}
}

func TestWordsAreCompletedByAgents(t *testing.T) {
	answers := map[string]string{
		"/v1/pods":     `{"items":[{"namespace":"shop","name":"web"},{"namespace":"batch","name":"job"}]}`,
		"/v1/services": `{"items":[{"namespace":"shop","name":"api","ports":[{"name":"http","port":80},{"port":9000}]}]}`,
	}
	agents := []ask.Agent{node(t, "a", answers), node(t, "b", answers), ask.Absent("c")}
	for args, want := range map[string]string{
		"flows --from sh":        "shop/web\n:4\n",
		"flows --to ":            "shop/api\n:4\n",
		"why ":                   "batch/job\nshop/web\n:4\n",
		"why shop/web shop":      "shop/api:9000\nshop/api:http\n:4\n",
		"why --from x --to shop": "shop/api:9000\nshop/api:http\n:4\n",
		"top --sort ":            "rate\nerrors\np99\n:4\n",
		"flows --status ":        "2xx\n3xx\n4xx\n5xx\n:4\n",
		"services --output ":     "table\njson\nyaml\nwide\n:4\n",
	} {
		if _, out, _ := run(t, agents, append([]string{cobra.ShellCompRequestCmd}, strings.Split(args, " ")...)...); out != want {
			t.Errorf("%q is completed by %q, want %q", args, out, want)
		}
	}
}

func TestNothingIsColoredForPrograms(t *testing.T) {
	if colors(&bytes.Buffer{}) {
		t.Error("a buffer is no terminal")
	}
}
