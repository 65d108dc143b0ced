// SPDX-License-Identifier: Apache-2.0

// Package apiserver starts a real etcd and a real kube-apiserver as children of
// a test, on loopback, with nothing else of a cluster: no controller, no
// scheduler, no kubelet. What those would write, pods' status and
// EndpointSlices, the test writes itself.
//
// The binaries come from the directory NODEVOY_ASSETS, which `make apiserver`
// fills from pinned Go modules and sets.
package apiserver

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// adminToken belongs to a member of system:masters, for whom every
	// authorizer says yes.
	adminToken = "admin"
	// startTimeout is long because a loaded machine of two cores needs it.
	startTimeout = 2 * time.Minute
	// serviceRange has room for 10,000 Services twice over; the second is for
	// dual-stack Services.
	serviceRange = "10.96.0.0/16,fd00:96::/112"
)

// Server is a running kube-apiserver over its own etcd.
type Server struct {
	config *rest.Config
	tokens string
}

// Start starts both processes and returns once the API server is ready. They end
// with the test, and also when the test process dies. It fails the test when a
// binary is missing or a process ends.
func Start(t testing.TB) *Server {
	t.Helper()
	dir := t.TempDir()
	etcd := fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	peers := fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	start(t, dir, "etcd",
		"--data-dir="+filepath.Join(dir, "etcd"),
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--listen-peer-urls="+peers, "--initial-advertise-peer-urls="+peers,
		"--initial-cluster=default="+peers,
		"--quota-backend-bytes=4294967296",
		"--unsafe-no-fsync", // the data is the test's, and dies with it
		"--log-level=error",
	)

	server := &Server{tokens: filepath.Join(dir, "tokens.csv")}
	writeFile(t, server.tokens, adminToken+",admin,1,system:masters\n"+agentToken+",agent,2,agents\n")
	key := writeSigningKey(t, dir)
	port := freePort(t)
	apiserver := start(t, dir, "kube-apiserver",
		"--etcd-servers="+etcd,
		"--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--endpoint-reconciler-type=none", // a loopback address may not be an endpoint
		"--cert-dir="+filepath.Join(dir, "certs"),
		"--token-auth-file="+server.tokens, "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--service-cluster-ip-range="+serviceRange,
		// No controller makes the default ServiceAccount here.
		"--disable-admission-plugins=ServiceAccount",
		// Filling it with 100,000 endpoints should not wait for its manners.
		"--enable-priority-and-fairness=false",
		"--max-requests-inflight=2000", "--max-mutating-requests-inflight=1000",
	)
	server.config = &rest.Config{
		Host:            fmt.Sprintf("https://127.0.0.1:%d", port),
		BearerToken:     adminToken,
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "certs", "apiserver.crt")},
		ContentConfig:   rest.ContentConfig{ContentType: "application/vnd.kubernetes.protobuf"},
		QPS:             -1, // no limit of the client's own
	}
	server.waitReady(t, apiserver)
	return server
}

// Config is a client configuration of an administrator's, free to be changed.
func (s *Server) Config() *rest.Config { return rest.CopyConfig(s.config) }

// Client is an administrator's client.
func (s *Server) Client(t testing.TB) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	return client
}

// waitReady polls /readyz until it says ok, the process has ended or time is up.
func (s *Server) waitReady(t testing.TB, apiserver *process) {
	t.Helper()
	last := ""
	ok := poll(startTimeout, func() bool {
		if apiserver.ended() {
			t.Fatalf("kube-apiserver ended: %v\n%s", apiserver.err, apiserver.tail(t))
		}
		last = s.readyz()
		return last == "ok"
	})
	if !ok {
		t.Fatalf("kube-apiserver not ready after %v: %s\n%s", startTimeout, last, apiserver.tail(t))
	}
}

// readyz is what the API server answers, or why it doesn't.
func (s *Server) readyz() string {
	// The certificate is made at start: until then no client can be.
	client, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		return err.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	body, err := client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// freePort is a loopback port nobody listens on at the moment.
func freePort(t testing.TB) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatalf("write %s: %v", filepath.Base(path), err)
	}
}

// lastLines is the end of a log, short enough to be read in a failure.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
