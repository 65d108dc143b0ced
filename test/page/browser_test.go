// SPDX-License-Identifier: Apache-2.0

// Package page tests the debug endpoint's page in a real, headless Chromium.
package page

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything in the browser may take: on a busy machine, much.
const patience = 60 * time.Second

// browser is a running Chromium that is told what to do by its DevTools protocol, over a
// pipe: messages are JSON, each with a zero byte after it.
type browser struct {
	to io.Writer

	mu      sync.Mutex
	last    int
	pending map[int]chan message
	tabs    map[string]*tab
}

// message is a command, its answer, or an event.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// startBrowser starts Chromium, with a profile of its own, for as long as the test runs.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	name := os.Getenv("NODEVOY_CHROMIUM")
	if name == "" {
		name = "chromium"
	}
	theirIn, in, err := os.Pipe()
	must(t, err)
	out, theirOut, err := os.Pipe()
	must(t, err)
	cmd := exec.Command(name, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, cmd.Start())
	must(t, theirIn.Close())
	must(t, theirOut.Close())
	b := &browser{to: in, pending: map[int]chan message{}, tabs: map[string]*tab{}}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.read(out)
	}()
	t.Cleanup(func() {
		// The end of the pipe ends it, and its children with it.
		_ = in.Close()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("Chromium did not end")
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // They should be gone.
		_ = cmd.Wait()                                      // It may have been killed.
		_ = out.Close()
	})
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// read gives answers to those who wait for them, and events to their tabs, until
// Chromium ends.
func (b *browser) read(from io.Reader) {
	in := bufio.NewReader(from)
	for {
		text, err := in.ReadBytes(0)
		if err != nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, waiting := range b.pending {
				close(waiting)
			}
			b.pending = nil
			return
		}
		var m message
		if json.Unmarshal(text[:len(text)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		waiting, of := b.pending[m.ID], b.tabs[m.Session]
		delete(b.pending, m.ID)
		b.mu.Unlock()
		switch {
		case waiting != nil:
			waiting <- m
		case of != nil:
			of.event(m)
		}
	}
}

// call sends a command, and reads its answer into result.
func (b *browser) call(ctx context.Context, session, method string, params, result any) error {
	text, err := json.Marshal(params)
	if err != nil {
		return err
	}
	waiting := make(chan message, 1)
	b.mu.Lock()
	if b.pending == nil {
		b.mu.Unlock()
		return fmt.Errorf("%s: Chromium has ended", method)
	}
	b.last++
	m := message{ID: b.last, Session: session, Method: method, Params: text}
	b.pending[m.ID] = waiting
	text, err = json.Marshal(m)
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	case answer, ok := <-waiting:
		switch {
		case !ok:
			return fmt.Errorf("%s: Chromium has ended", method)
		case answer.Error != nil:
			return fmt.Errorf("%s: %s", method, answer.Error.Message)
		case result == nil:
			return nil
		}
		return json.Unmarshal(answer.Result, result)
	}
}
