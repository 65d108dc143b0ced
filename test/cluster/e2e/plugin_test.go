// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// plugin runs kubectl's plugin, as `kubectl nodevoy` does.
func (c *cluster) plugin(args ...string) (string, error) {
	return c.attempt(filepath.Join(c.dir, "bin/kubectl-nodevoy"), args...)
}

// ofNodes is what the plugin prints of several nodes as JSON.
type ofNodes[T any] struct {
	Nodes []struct {
		Node, State, Error string
		Answer             *T
	}
}

func parse[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("parse %q: %v", text, err)
	}
	return v
}

// checked is what `kubectl nodevoy check` says.
type checked struct {
	Installed bool
	Mode      string
	Lines     []struct{ Level, Topic, Text, Do string }
}

// pluginBefore checks nodes on which nothing is installed.
func (c *cluster) pluginBefore(t *testing.T) {
	began := time.Now()
	version := strings.TrimSpace(c.run(t, "sed", "-n", "s/^appVersion: //p", chart+"/Chart.yaml"))
	out, err := c.plugin("check", "-o", "json", "--image", "ghcr.io/nodevoy/nodevoy:"+version)
	if err != nil {
		t.Errorf("the nodes have what they need, but: %v", err)
	}
	t.Logf("check before the install: %.1f s", time.Since(began).Seconds())
	c.judge(t, out, false)
	eventually(t, 30*time.Second, func() error {
		if left := c.kubectl(t, "get", "namespaces", "-l", "nodevoy.io/check", "-o", "name"); left != "" {
			return errors.New("the check has left " + left)
		}
		return nil
	})
}

// judge says whether each node was checked and nothing failed.
func (c *cluster) judge(t *testing.T, out string, installed bool) {
	t.Helper()
	all := parse[ofNodes[checked]](t, out)
	if len(all.Nodes) != len(nodes()) {
		t.Fatalf("%d nodes were checked: %s", len(all.Nodes), out)
	}
	for _, n := range all.Nodes {
		if n.Answer == nil {
			t.Errorf("%s: %s: %s", n.Node, n.State, n.Error)
			continue
		}
		// By itself, a node of this cluster takes pod mode.
		if want := map[bool]string{true: c.redirect, false: podMode}[installed]; n.Answer.Mode != want || n.Answer.Installed != installed {
			t.Errorf("%s: mode %s, installed %v, want %s, %v", n.Node, n.Answer.Mode, n.Answer.Installed, want, installed)
		}
		topics := map[string]bool{}
		for _, l := range n.Answer.Lines {
			topics[l.Topic] = true
			if l.Level == "failed" {
				t.Errorf("%s: %+v", n.Node, l)
			}
		}
		if !topics["kube-proxy"] || !topics["mode"] {
			t.Errorf("%s: nothing is said of kube-proxy or the mode: %+v", n.Node, n.Answer.Lines)
		}
	}
}

// pluginAfter asks the agents of both nodes while pods call.
func (c *cluster) pluginAfter(t *testing.T) {
	began := time.Now()
	out, err := c.plugin("check", "-o", "json")
	if err != nil {
		t.Error(err)
	}
	c.judge(t, out, true)
	c.followed(t)
	c.explained(t)
	c.dumped(t)
	c.ranked(t)
	t.Logf("kubectl nodevoy: %.1f s", time.Since(began).Seconds())
}

// What callers send that is nobody else's business.
const (
	secretToken, secretQuery, secretHeader = "c2VjcmV0LXRva2Vu", "card=4111222233334444", "hunter2hunter2"
)

// tell makes a call with secrets from a pod.
func (c *cluster) tell(t *testing.T, from pod) {
	t.Helper()
	c.onNode(t, from.node, append(c.inside(t, from, "client"), "curl", "-sS", "-o", "/dev/null", "-H", "Authorization: Bearer "+secretToken,
		"-H", "X-Note: "+secretHeader, "http://"+c.addresses(t)[0]+"/cart?"+secretQuery)...)
}

// spoken are the protocols of flows, by the port of the Service that they are called at.
func spoken() map[string]string {
	return map[string]string{"http": "HTTP/1.1", "grpc": "gRPC", "tcp": "TCP"}
}

// speak makes a call of each protocol from a pod.
func (c *cluster) speak(t *testing.T, from pod) {
	t.Helper()
	c.tell(t, from)
	for port, protocol := range map[int]string{echo.GRPCPort: echo.GRPC, echo.TCPPort: echo.TCP} {
		from.target = fmt.Sprintf("%s:%d", c.addresses(t)[0], port)
		if _, err := c.call(from, echo.Spec{Protocol: protocol, Requests: 1}); err != nil {
			t.Error(err)
		}
	}
}

// followed says whether a call of each protocol and node is in the merged stream, with
// both pods.
func (c *cluster) followed(t *testing.T) {
	cmd := c.command(filepath.Join(c.dir, "bin/kubectl-nodevoy"), "flows", "-n", "demo", "-f", "--to", "svc/echo", "-o", "json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string)
	go func() {
		defer close(seen)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			seen <- lines.Text()
		}
	}()
	names := map[string]string{}
	for _, p := range c.pods(t, "echo") {
		names[p.name] = p.node
	}
	clients, missing := map[string]pod{}, map[string]string{}
	for _, node := range nodes() {
		clients[node] = c.client(t, node)
		for port := range spoken() {
			missing[node+" "+port] = node
		}
	}
	deadline, again := time.After(30*time.Second), time.NewTicker(time.Second)
	defer again.Stop()
	for len(missing) > 0 {
		select {
		case line, ok := <-seen:
			if !ok {
				t.Fatal("the stream has ended")
			}
			delete(missing, c.named(t, line, clients, names))
		case <-again.C:
			// The streams may not have begun yet.
			for _, node := range slices.Compact(slices.Sorted(maps.Values(missing))) {
				c.speak(t, clients[node])
			}
		case <-deadline:
			t.Fatalf("no flow of calls from %v in 30 s", missing)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for range seen {
		continue
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted, it ended with %v", err)
	}
}

// named is the node that tells of a flow from its client to one of the servers, whose
// nodes are given, and the port that was called; empty if the flow is another.
func (c *cluster) named(t *testing.T, line string, clients map[string]pod, servers map[string]string) string {
	t.Helper()
	f := parse[struct {
		OnNode                 string
		Source, Backend        struct{ Namespace, Pod, Node string }
		Service                struct{ Namespace, Name, Port string }
		Origin, Protocol, Path string
		Status                 int
	}](t, line)
	if strings.Contains(line, secretQuery) || strings.Contains(line, secretToken) {
		t.Errorf("a flow tells what was sent: %s", line)
	}
	from, is := clients[f.OnNode]
	// Others are of tests before, and of the kernel.
	if !is || f.Origin != "envoy" || f.Service.Port == "http" && f.Path != "/cart" {
		return ""
	}
	if f.Source.Pod != from.name || f.Service.Name != "echo" || f.Protocol != spoken()[f.Service.Port] ||
		servers[f.Backend.Pod] != f.Backend.Node || f.Backend.Node == "" || (f.Status == 0) != (f.Protocol == "TCP") {
		t.Errorf("the flow of a call from %s is %s", from.name, line)
	}
	return f.OnNode + " " + f.Service.Port
}

// explained asks where the calls of both clients go.
func (c *cluster) explained(t *testing.T) {
	out, err := c.plugin("why", "-n", "demo", "ds/client", "svc/echo:80", "-o", "json")
	if err != nil {
		t.Error(err)
	}
	all := parse[ofNodes[struct{ Verdict, Sentence string }]](t, out)
	if len(all.Nodes) != len(nodes()) {
		t.Errorf("%d answers for %d nodes: %s", len(all.Nodes), len(nodes()), out)
	}
	for _, n := range all.Nodes {
		if n.Answer == nil || n.Answer.Verdict != "envoy" || n.Answer.Sentence == "" {
			t.Errorf("%s: %s %s: %+v", n.Node, n.State, n.Error, n.Answer)
		}
	}
}

// ranked asks for the Services that are called most.
func (c *cluster) ranked(t *testing.T) {
	from := c.client(t, nodeA)
	eventually(t, 30*time.Second, func() error {
		done := make(chan struct{})
		go func() {
			defer close(done)
			// For longer than between the two looks; what became of them is in the rows.
			_, _ = c.call(from, echo.Spec{Protocol: echo.HTTP1, Rate: 20, Duration: 9 * time.Second})
		}()
		out, err := c.plugin("top", "-n", "demo", "-o", "json")
		<-done
		if err != nil {
			return err
		}
		top := parse[struct {
			Services []struct {
				Service           string
				RequestsPerSecond float64
				P99Seconds        *float64
			}
		}](t, out)
		if len(top.Services) == 0 || top.Services[0].Service != "echo" || top.Services[0].RequestsPerSecond == 0 || top.Services[0].P99Seconds == nil {
			return errors.New("echo is not ranked: " + out)
		}
		return nil
	})
}

// dumped makes an archive of both nodes, in time and with nothing secret in it.
func (c *cluster) dumped(t *testing.T) {
	for _, node := range nodes() {
		c.tell(t, c.client(t, node))
	}
	began := time.Now()
	file := filepath.Join(t.TempDir(), "dump.tar.gz")
	if _, err := c.plugin("dump", "-f", file); err != nil {
		t.Error(err)
	}
	took := time.Since(began)
	t.Logf("dump: %.1f s", took.Seconds())
	if took > 30*time.Second {
		t.Errorf("it took %s, want 30 s at most", took)
	}
	token := c.kubectl(t, "create", "token", release, "-n", release)
	secrets := []string{secretToken, secretQuery, secretHeader, token, "eyJhbGciOi"}
	files, err := unpack(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes() {
		for _, name := range []string{"summary.json", "pods.json", "flows.json", "metrics.txt", "envoy/config_dump.json", "agent.log"} {
			if found := find(files, node+"/"+name); found == "" {
				t.Errorf("the archive has no %s of %s", name, node)
			}
		}
		if flows := find(files, node+"/flows.json"); !strings.Contains(flows, `"/cart"`) {
			t.Errorf("the call that was just made is not in %s", flows)
		}
	}
	for name, text := range files {
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s tells %s", name, secret)
			}
		}
	}
}

// find is the file whose name ends so; empty if there is none.
func find(files map[string]string, end string) string {
	for name, text := range files {
		if strings.HasSuffix(name, "/"+end) {
			return text
		}
	}
	return ""
}

// unpack reads an archive.
func unpack(file string) (files map[string]string, err error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	zip, err := gzip.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	files = map[string]string{}
	for archive := tar.NewReader(zip); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", head.Name, err)
		}
		files[head.Name] = string(text)
	}
}
