// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/nodevoy/nodevoy/agent/healthcheck"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/server"
)

// The addresses of the listeners, as on a node.
const (
	listen4 = "169.254.64.15"
	listen6 = "fd6e:6f64:6576:6f79::15"
)

// frontendRange is a range of addresses whose connections go to one listener.
type frontendRange struct {
	v4, v6 string
	port   uint16
}

func ranges() []frontendRange {
	return []frontendRange{
		{"10.96.1.0/24", "fd00:96:1::/64", 23722}, // http
		{"10.96.2.0/24", "fd00:96:2::/64", 23721}, // tcp
		{"10.96.3.0/24", "fd00:96:3::/64", 23723}, // detect
	}
}

func testConfig(dir string) xds.Config {
	cfg := xds.Default()
	cfg.NodeID = "node-a"
	cfg.Socket = filepath.Join(dir, "xds.sock")
	cfg.AdminSocket = filepath.Join(dir, healthcheck.EnvoyAdminSocket)
	cfg.HealthSocket = filepath.Join(dir, healthcheck.EnvoySocket)
	cfg.Address4 = netip.MustParseAddr(listen4)
	cfg.Address6 = netip.MustParseAddr(listen6)
	cfg.Ports = model.Ports{TCP: 23721, HTTP: 23722, Detect: 23723}
	return cfg
}

// fixture is an Envoy and the server it is configured by.
type fixture struct {
	t       *testing.T
	dir     string
	cfg     xds.Config
	server  *server.Server
	stop    func()
	envoy   *exec.Cmd
	admin   *http.Client
	workers int
	// pods are those whose namespaces Envoy listens in, in pod mode.
	pods []*pod
	// replace is a replacement in the text of the bootstrap, if set.
	replace *strings.Replacer
}

// setup is how a fixture differs from what an agent would run.
type setup struct {
	change  func(*xds.Config)
	options []server.Option
	// pods put the fixture into pod mode, in these.
	pods []*pod
	// workers is how many threads Envoy has for connections, 1 if not set.
	workers int
	// unready says that Envoy won't get to be ready.
	unready bool
	// replace is a replacement in the text of the bootstrap, if set.
	replace *strings.Replacer
}

// newFixture starts both and waits until Envoy listens.
func newFixture(t *testing.T, node *model.Node) *fixture {
	t.Helper()
	return newFixtureWith(t, node, setup{})
}

// newFixtureWith is newFixture with something changed.
func newFixtureWith(t *testing.T, node *model.Node, with setup) *fixture {
	t.Helper()
	// /run is the test's own; t.TempDir's name may be too long for a socket.
	dir, err := os.MkdirTemp("/run", "envoy-")
	if err != nil {
		t.Fatal(err)
	}
	r := &fixture{t: t, dir: dir, cfg: testConfig(dir), pods: with.pods, workers: with.workers, replace: with.replace}
	if with.pods != nil {
		inPods(&r.cfg)
	}
	if with.change != nil {
		with.change(&r.cfg)
	}
	r.admin = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.cfg.AdminSocket)
		},
	}}
	r.serve(node, with.options...)
	r.startEnvoy()
	if !with.unready {
		r.awaitReady()
	}
	return r
}

// serve starts a server with the fixture's configuration, in place of any before.
func (r *fixture) serve(node *model.Node, opts ...server.Option) {
	r.t.Helper()
	log := zap.NewNop()
	if testing.Verbose() {
		log = zaptest.NewLogger(r.t)
	}
	s, err := server.New(r.cfg, log, opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r.server = s
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("server: %v", err)
		}
	}
	r.t.Cleanup(r.stop)
	s.Publish(node, targets(r.pods...))
}

func (r *fixture) path(name string) string { return filepath.Join(r.dir, name) }

// startEnvoy starts Envoy with the rendered bootstrap.
func (r *fixture) startEnvoy() {
	r.t.Helper()
	bootstrap, err := xds.Bootstrap(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.replace != nil {
		bootstrap = []byte(r.replace.Replace(string(bootstrap)))
	}
	if err := os.WriteFile(r.path("bootstrap.yaml"), bootstrap, 0o600); err != nil {
		r.t.Fatal(err)
	}
	stdout, err := os.OpenFile(r.path("access.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	stderr, err := os.OpenFile(r.path("envoy.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	level := os.Getenv("NODEVOY_TEST_ENVOY_LEVEL")
	if level == "" {
		level = "warning"
	}
	r.envoy = exec.Command(os.Getenv(envoyVar), "-c", r.path("bootstrap.yaml"), "--concurrency", strconv.Itoa(max(1, r.workers)),
		"--disable-hot-restart", "--file-flush-interval-msec", "20", "-l", level)
	r.envoy.Stdout, r.envoy.Stderr = stdout, stderr
	if err := r.envoy.Start(); err != nil {
		r.t.Fatalf("start envoy: %v", err)
	}
	// Envoy has its own copies of the files.
	if err := errors.Join(stdout.Close(), stderr.Close()); err != nil {
		r.t.Fatal(err)
	}
	cmd := r.envoy
	r.t.Cleanup(func() { r.endEnvoy(cmd) })
}

// endEnvoy ends Envoy and shows what it had to say if the test failed.
func (r *fixture) endEnvoy(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait() // Killed: the error says so.
	}
	if r.t.Failed() {
		text, err := os.ReadFile(r.path("envoy.log"))
		r.t.Logf("envoy's log (%v):\n%s", err, tail(string(text), 60))
	}
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// awaitReady waits until Envoy has all it needs and accepts connections.
func (r *fixture) awaitReady() {
	r.t.Helper()
	eventually(r.t, 20*time.Second, func() error {
		st := r.server.Status()
		if !st.Settled || !st.ListenersAcked {
			return fmt.Errorf("not settled: %+v", st)
		}
		if r.pods == nil {
			return r.probe()
		}
		for _, p := range r.pods {
			if err := p.probe(); err != nil {
				return err
			}
		}
		return nil
	})
}

// probe asks the HTTP listener itself, as the agent does.
func (r *fixture) probe() error {
	return probePort(&net.Dialer{}, listen4, strconv.Itoa(int(r.cfg.Ports.HTTP)))
}

// dialer connects from somewhere.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// probe asks the HTTP listener at this address.
func probe(from dialer, at string) error { return probePort(from, at, "23722") }

// probePort asks the listener of this port.
func probePort(from dialer, at, port string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := from.DialContext(ctx, "tcp", net.JoinHostPort(at, port))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if string(answer) != xds.NotRedirected {
		return fmt.Errorf("probe: %q, %w", answer, err)
	}
	return err
}

// eventually waits until f returns nil, and fails the test if that takes
// longer than limit. It returns how long it took.
func eventually(t *testing.T, limit time.Duration, f func() error) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		took := time.Since(start)
		if err == nil {
			return took
		}
		if took > limit {
			t.Fatalf("after %v: %v", took.Round(time.Millisecond), err)
		}
		<-tick.C
	}
}

// ask does a request to Envoy's admin interface.
func (r *fixture) ask(path string) string {
	r.t.Helper()
	resp, err := r.admin.Get("http://admin" + path)
	if err != nil {
		r.t.Fatalf("admin %s: %v", path, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("admin %s: %s, %v: %s", path, resp.Status, err, body)
	}
	return string(body)
}

// stat reads one of Envoy's counters or gauges; 0 if it does not exist yet.
func (r *fixture) stat(name string) int {
	r.t.Helper()
	for line := range strings.Lines(r.ask("/stats?usedonly&filter=^" + name + "$")) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok && key == name {
			n, err := strconv.Atoi(value)
			if err != nil {
				r.t.Fatalf("stat %s: %v", name, err)
			}
			return n
		}
	}
	return 0
}

// clusters are the names of the dynamic clusters that Envoy has and uses.
func (r *fixture) clusters() map[string]map[string]any {
	r.t.Helper()
	var dump struct {
		Configs []struct {
			DynamicActiveClusters []struct {
				Cluster map[string]any `json:"cluster"`
			} `json:"dynamic_active_clusters"`
		} `json:"configs"`
	}
	if err := json.Unmarshal([]byte(r.ask("/config_dump?mask=dynamic_active_clusters")), &dump); err != nil {
		r.t.Fatalf("config dump: %v", err)
	}
	out := map[string]map[string]any{}
	for _, c := range dump.Configs {
		for _, d := range c.DynamicActiveClusters {
			if name, ok := d.Cluster["name"].(string); ok {
				out[name] = d.Cluster
			}
		}
	}
	return out
}

// accessLog waits until the log has n lines and returns them.
func (r *fixture) accessLog(n int) []string {
	r.t.Helper()
	var lines []string
	eventually(r.t, 5*time.Second, func() error {
		text, err := os.ReadFile(r.path("access.log"))
		if err != nil {
			return err
		}
		lines = strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		if len(text) == 0 {
			lines = nil
		}
		if len(lines) < n {
			return fmt.Errorf("%d lines of the access log, want %d:\n%s", len(lines), n, text)
		}
		return nil
	})
	return lines
}

// post changes something by Envoy's admin interface.
func (r *fixture) post(path string) {
	r.t.Helper()
	resp, err := r.admin.Post("http://admin"+path, "", http.NoBody)
	if err != nil {
		r.t.Fatalf("admin %s: %v", path, err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("admin %s: %s, %v", path, resp.Status, err)
	}
}
