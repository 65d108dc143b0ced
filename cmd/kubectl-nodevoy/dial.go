// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/nodevoy/nodevoy/agent/ask"
)

// agentOf is the agent of a node, asked by a program in its container.
func (c *cluster) agentOf(n node) ask.Agent {
	if n.agent == nil {
		return ask.Absent(n.name)
	}
	return ask.New(n.name, func(ctx context.Context) (net.Conn, error) { return c.dial(ctx, n.agent) })
}

// dial opens a connection to the agent's socket. The connection lasts until it is
// closed, whatever becomes of ctx afterwards.
func (c *cluster) dial(ctx context.Context, agent *corev1.Pod) (net.Conn, error) {
	if err := whyNot(agent); err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	conn := &execConn{Conn: ours, end: end}
	stopped := context.AfterFunc(ctx, func() { _ = conn.Close() })
	said := &limited{}
	ended := make(chan error, 1)
	go func() {
		err := c.exec(running, agent, []string{"nodevoy", "debug-proxy"}, streams{in: theirs, out: theirs, err: said})
		ended <- err
		_ = theirs.Close() // Of a pipe, it can't fail.
	}()
	greeting := make([]byte, len(ask.Greeting))
	_, err := io.ReadFull(ours, greeting)
	if !stopped() {
		return nil, errors.Join(ctx.Err(), conn.Close())
	}
	if err != nil || string(greeting) != ask.Greeting {
		_ = conn.Close()
		return nil, failure(<-ended, said.String(), agent)
	}
	return conn, nil
}

// execConn ends the program when it is closed.
type execConn struct {
	net.Conn
	end context.CancelFunc
}

func (c *execConn) Close() error {
	err := c.Conn.Close()
	c.end()
	return err
}

// failure says why a program in the agent's container didn't do its work.
func failure(err error, said string, agent *corev1.Pod) error {
	said = strings.TrimSpace(said)
	exit := new(utilexec.CodeExitError)
	switch {
	case errors.As(err, exit) && said != "":
		// Also that it is not running, which it should be in its own pod.
		return errors.New(said)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("may not exec in pod %s/%s (pods/exec, verbs create and get): %w", agent.Namespace, agent.Name, err)
	case err == nil:
		return fmt.Errorf("the program in pod %s/%s ended: %s", agent.Namespace, agent.Name, said)
	}
	return fmt.Errorf("exec in pod %s/%s: %w", agent.Namespace, agent.Name, err)
}

// limited keeps the beginning of what is written.
type limited struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// maxSaid is how much of a program's standard error is kept.
const maxSaid = 4 << 10

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p[:min(len(p), maxSaid-l.buf.Len())])
	return len(p), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
