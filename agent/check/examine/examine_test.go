// SPDX-License-Identifier: Apache-2.0

package examine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/check"
	"github.com/nodevoy/nodevoy/redirect/probe"
)

func TestEveryMissingRequirementIsFound(t *testing.T) {
	pod := errors.Join(
		&probe.MissingRequirement{What: "no namespaces", Remedy: "mount them"},
		fmt.Errorf("try: %w", &probe.MissingRequirement{What: "no rules", Remedy: "modprobe", Err: errors.New("a\nb")}),
	)
	err := fmt.Errorf("neither: pod: %w; host: %w", pod, &probe.MissingRequirement{What: "no ipset", Remedy: "modprobe ip_set"})
	want := []check.Requirement{{What: "no namespaces", Remedy: "mount them"}, {What: "no rules: a; b", Remedy: "modprobe"}, {What: "no ipset", Remedy: "modprobe ip_set"}}
	if diff := cmp.Diff(want, requirements(err)); diff != "" {
		t.Error(diff)
	}
	if got := requirements(errors.New("something else")); got != nil {
		t.Errorf("found %v in an error of another kind", got)
	}
}

func TestCapabilitiesAreReadFromStatus(t *testing.T) {
	got := ofStatus("Name:\tnodevoy\nCapPrm:\t0000000000000000\nCapEff:\t0000000000203000\nSeccomp:\t2\n")
	if diff := cmp.Diff([]string{"NET_ADMIN", "NET_RAW", "SYS_ADMIN"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestPortsOfOthersAreFound(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	cfg := agent.DefaultConfig()
	cfg.MetricsAddress = ""
	cfg.Redirect.Ports.HTTP = uint16(ln.Addr().(*net.TCPAddr).Port)
	want := []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(int(cfg.Redirect.Ports.HTTP)))}
	if diff := cmp.Diff(want, taken(t.Context(), cfg)); diff != "" {
		t.Error(diff)
	}
}

func TestAnAgentThatRunsIsAsked(t *testing.T) {
	cfg := agent.DefaultConfig()
	// The path of a unix socket is short.
	dir, err := os.MkdirTemp("/run", "examine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cfg.RunDir = dir
	ln, err := net.Listen("unix", agent.DebugSocket(dir))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	metrics := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(metrics.Close)
	at := metrics.Listener.Addr().String()
	config := fmt.Sprintf(`{"flags":[{"name":"mark","value":"1"},{"name":"metrics-address","value":%q}]}`, at)
	for path, answer := range map[string]string{"/v1/config": config, "/v1/summary": `{"node":"node-a"}`, "/v1/pods": `{"items":[{"name":"web"}]}`, "/v1/frontends": `{"items":[]}`} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })
	}
	server := &httptest.Server{Listener: ln, Config: &http.Server{Handler: mux}}
	server.Start()
	t.Cleanup(server.Close)
	f := Gather(t.Context(), cfg, "v1")
	if f.Agent == nil || f.Agent.View.Node != "node-a" || len(f.Agent.View.Pods) != 1 || f.Probe != nil {
		t.Fatalf("found %+v", f)
	}
	if f.Agent.EnvoyError == "" {
		t.Error("there is no Envoy, and nothing is said of it")
	}
	if f.Agent.Metrics != at || !strings.Contains(f.Agent.MetricsError, "404") {
		t.Errorf("metrics at %s: %s, want 404 at %s", f.Agent.Metrics, f.Agent.MetricsError, at)
	}
	if f.Kernel == "" || f.Version != "v1" {
		t.Errorf("kernel %q, version %q", f.Kernel, f.Version)
	}
}
