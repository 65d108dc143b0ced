// SPDX-License-Identifier: Apache-2.0

// Package cluster tests on the two-node cluster that `make cluster-up` starts:
// real kubelets, containerd, kube-proxy and DNS.
package cluster

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// kubectl runs kubectl, fails the test when it does, and returns its output.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tryKubectl(t, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// tryKubectl is kubectl for what may fail; the output has what went wrong.
func tryKubectl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("kubectl", args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		return out.String() + errs.String(), err
	}
	return strings.TrimSpace(out.String()), nil
}

// apply creates the objects of a file and removes them after the test.
func apply(t *testing.T, file string) {
	t.Helper()
	t.Cleanup(func() { kubectl(t, "delete", "--ignore-not-found", "--wait", "--timeout=60s", "-f", file) })
	kubectl(t, "apply", "-f", file)
}

// call makes calls from a pod and returns what became of them.
func call(t *testing.T, namespace, pod string, spec echo.Spec) (echo.Result, error) {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatalf("encode spec: %v", err)
	}
	out, err := tryKubectl(t, "exec", "-n", namespace, pod, "--", "/echo", "call", string(text))
	var printed struct{ Result echo.Result }
	if unreadable := json.Unmarshal([]byte(out), &printed); unreadable != nil {
		t.Fatalf("call %s from %s: %v: %s", spec.Target, pod, err, out)
	}
	return printed.Result, err
}

// eventually polls until the condition returns no error, and fails with the
// last one when it doesn't within 20 seconds.
func eventually(t *testing.T, condition func() error) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			t.Fatalf("after 20 s: %v", err)
		case <-tick.C:
		}
	}
}
