// SPDX-License-Identifier: Apache-2.0

// Command kubeexec runs commands for clients of Kubernetes' exec protocols, with the code
// of container runtimes, or is such a client, with the code of kubectl.
//
//	kubeexec serve ADDRESS
//	kubeexec spdy|websocket ADDRESS COMMAND...
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	osexec "os/exec"
	"time"

	restclient "k8s.io/client-go/rest"
	client "k8s.io/client-go/tools/remotecommand"
	server "k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		log.Fatal(err)
	}
}

func run(what, address string, command []string) error {
	if what == "serve" {
		s := &http.Server{Addr: address, Handler: http.HandlerFunc(serve), ReadHeaderTimeout: time.Minute}
		return s.ListenAndServe()
	}
	query := url.Values{"output": {"1"}, "error": {"1"}, "command": command}
	options := client.StreamOptions{Stdout: os.Stdout, Stderr: os.Stderr}
	if what == "spdy" { // By WebSocket, the end of standard input can't be told before v5.
		query.Set("input", "1")
		options.Stdin = os.Stdin
	}
	target := &url.URL{Scheme: "http", Host: address, Path: "/exec", RawQuery: query.Encode()}
	config := &restclient.Config{Host: "http://" + address}
	var executor client.Executor
	var err error
	if what == "spdy" {
		executor, err = client.NewSPDYExecutor(config, http.MethodPost, target)
	} else {
		// Runtimes serve up to v4; v5 is the API server's.
		executor, err = client.NewWebSocketExecutorForProtocols(config, http.MethodGet, target.String(), "v4.channel.k8s.io")
	}
	if err != nil {
		return err
	}
	return executor.StreamWithContext(context.Background(), options)
}

func serve(w http.ResponseWriter, r *http.Request) {
	options, err := server.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	server.ServeExec(w, r, executor{}, "pod", "uid", "container", r.URL.Query()["command"], options,
		time.Minute, 10*time.Second, []string{"v4.channel.k8s.io", "v3.channel.k8s.io", "channel.k8s.io"})
}

// executor runs commands on this machine.
type executor struct{}

// ExecInContainer runs the command to its end.
func (executor) ExecInContainer(ctx context.Context, _, _, _ string, argv []string, in io.Reader, out, errs io.WriteCloser,
	_ bool, _ <-chan server.TerminalSize, _ time.Duration,
) error {
	cmd := osexec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w", argv[0], err)
	}
	return nil
}
