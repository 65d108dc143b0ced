// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/test/contain"
)

// TestResidue wants whatever a lab could leave behind to be an error
// that names it. The rest of the package is proven by test/e2e, inside one.
func TestResidue(t *testing.T) {
	before := machine{"ipset: create nodevoy-old": true}
	if err := (machine{"ipset: create nodevoy-old": true}).since(before, contain.Mark+"=nobody"); err != nil {
		t.Errorf("what was there before counts as left behind: %v", err)
	}
	err := machine{"ipset: create nodevoy-new": true}.since(before, contain.Mark+"=nobody")
	if err == nil || !strings.Contains(err.Error(), "nodevoy-new") {
		t.Errorf("a new ipset: got %v", err)
	}
	left := exec.CommandContext(t.Context(), "sleep", "60")
	left.Env = []string{contain.Mark + "=somebody"}
	if err := left.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = left.Process.Kill()
		_ = left.Wait()
	})
	if err := before.since(before, contain.Mark+"=somebody"); err == nil || !strings.Contains(err.Error(), "process") {
		t.Errorf("a process that goes on: got %v", err)
	}
}

func TestUntil(t *testing.T) {
	calls := 0
	err := Until(t.Context(), "three", func() error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || calls != 3 {
		t.Errorf("after %d calls: %v", calls, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	last := errors.New("never")
	err = Until(ctx, "nothing", func() error {
		cancel()
		return last
	})
	if !errors.Is(err, last) || !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was given up: %v", err)
	}
}

// TestObjectsFiles wants one file for each object, written again only when it
// has changed, and removed with it.
func TestObjectsFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	o, err := newObjects(dir)
	if err != nil {
		t.Fatal(err)
	}
	write := func() {
		t.Helper()
		if err := o.write(); err != nil {
			t.Fatal(err)
		}
	}
	o.SetNamespace("shop", map[string]string{"a": "b"})
	ips := []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00::1")}
	o.SetService(Service{Namespace: "shop", Name: "web", IPs: ips, Ports: EchoPorts()})
	write()
	want := []string{"endpointslice-shop-web-ipv4.yaml", "endpointslice-shop-web-ipv6.yaml", "namespace-shop.yaml", "service-shop-web.yaml"}
	if diff := cmp.Diff(want, files(t, dir)); diff != "" {
		t.Fatalf("files, -want +got:\n%s", diff)
	}
	namespace := filepath.Join(dir, "namespace-shop.yaml")
	before, err := os.Stat(namespace)
	if err != nil {
		t.Fatal(err)
	}
	o.DeleteService("shop", "web")
	write()
	if diff := cmp.Diff([]string{"namespace-shop.yaml"}, files(t, dir)); diff != "" {
		t.Fatalf("files after the Service is gone, -want +got:\n%s", diff)
	}
	after, err := os.Stat(namespace)
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(before, after) {
		t.Error("a file was written again although its object is the same")
	}
}

// files are the names in a directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
