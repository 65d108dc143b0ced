// SPDX-License-Identifier: Apache-2.0

// Package apiserver starts a real etcd and a real kube-apiserver on a node of a
// lab, with nothing else of a cluster: no controller, no scheduler, no
// kubelet. What those would write, pods' status and EndpointSlices, the test
// writes itself.
//
// The binaries come from the directory NODEVOY_ASSETS, which `make apiserver`
// fills from pinned Go modules and sets.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/nodevoy/nodevoy/test/lab"
)

const (
	// adminToken belongs to a member of system:masters, for whom every
	// authorizer says yes; agentToken to a user who may do what Grant says.
	adminToken, agentToken = "admin", "agent"
	// startTimeout is long because a loaded machine of two cores needs it.
	startTimeout = 2 * time.Minute
	// serviceRange has room for 10,000 Services, and for the lab's own.
	serviceRange = "10.96.0.0/16,fd00:10:96::/112"
)

// Server is a running kube-apiserver over its own etcd.
type Server struct {
	config *rest.Config
	// etcd is the URL of its store.
	etcd string
}

// Start starts both on the node, which is to have nothing else on their ports,
// and returns once the API server is ready. They end with the lab.
func Start(t testing.TB, node *lab.Node) *Server {
	t.Helper()
	dir := t.TempDir()
	host := node.IPs[0].String()
	etcd := fmt.Sprintf("http://%s:2379", host)
	run(t, node, "etcd",
		"--data-dir="+filepath.Join(dir, "etcd"),
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--quota-backend-bytes=4294967296",
		"--unsafe-no-fsync", // the data is the test's, and dies with it
		"--log-level=error",
	)
	tokens := filepath.Join(dir, "tokens.csv")
	writeFile(t, tokens, adminToken+",admin,1,system:masters\n"+agentToken+",agent,2\n")
	key := writeSigningKey(t, dir)
	certificates := filepath.Join(dir, "certificates")
	process := run(t, node, "kube-apiserver",
		"--etcd-servers="+etcd,
		"--bind-address="+host, "--advertise-address="+host, "--cert-dir="+certificates,
		"--token-auth-file="+tokens, "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--service-cluster-ip-range="+serviceRange,
		// No controller makes the default ServiceAccount here.
		"--disable-admission-plugins=ServiceAccount",
	)
	server := &Server{etcd: etcd, config: &rest.Config{
		Host:            fmt.Sprintf("https://%s:6443", host),
		BearerToken:     adminToken,
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(certificates, "apiserver.crt")},
		ContentConfig:   rest.ContentConfig{ContentType: "application/vnd.kubernetes.protobuf"},
		QPS:             -1, // no limit of the client's own
	}}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := lab.Until(ctx, "the API server", func() error { return server.ready(ctx, process) }); err != nil {
		t.Fatalf("%v\n%s", err, lastLines(process.Output(), 20))
	}
	return server
}

// Client is an administrator's client.
func (s *Server) Client(t testing.TB) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	return client
}

// Config is how an administrator reaches the API server.
func (s *Server) Config() *rest.Config { return rest.CopyConfig(s.config) }

// ready returns why the API server doesn't say that it is.
func (s *Server) ready(ctx context.Context, process *lab.Process) error {
	select {
	case <-process.Ended():
		return errors.New("it has ended")
	default:
	}
	// The certificate is made at start: until then no client can be.
	client, err := kubernetes.NewForConfig(s.config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return client.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// run starts one of the asset binaries on the node.
func run(t testing.TB, node *lab.Node, name string, args ...string) *lab.Process {
	t.Helper()
	assets := os.Getenv("NODEVOY_ASSETS")
	if assets == "" {
		t.Fatal("NODEVOY_ASSETS is not set: `make apiserver` builds etcd and kube-apiserver, and sets it")
	}
	process, err := node.Start(name+".log", append([]string{filepath.Join(assets, name)}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return process
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
