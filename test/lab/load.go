// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// Load is a client that runs in a pod until it is stopped, with every request
// on record. Its methods are safe for concurrent use.
type Load struct {
	cmd *exec.Cmd

	mu      sync.Mutex
	records []echo.Record
	result  echo.Result
	done    chan struct{}
	err     error
}

// Load starts the calls of a spec from the pod, by OwnPorts.
func (p *Pod) Load(spec echo.Spec) (*Load, error) {
	spec.Trace, spec.OwnPorts = true, true
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	l := &Load{cmd: exec.Command("/proc/self/exe", echo.Command, "call", string(text)), done: make(chan struct{})}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	if err := p.ns.do(l.cmd.Start); err != nil {
		return nil, fmt.Errorf("start load in %s: %w", p.Name, err)
	}
	go l.read(out)
	return l, nil
}

// read takes in records as they come, and the result at the end.
func (l *Load) read(out io.Reader) {
	defer close(l.done)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var line struct {
			echo.Record
			Result *echo.Result
		}
		err := json.Unmarshal(lines.Bytes(), &line)
		l.mu.Lock()
		switch {
		case err != nil:
			l.err = fmt.Errorf("parse record %q: %w", lines.Text(), err)
		case line.Result != nil:
			l.result = *line.Result
		default:
			l.records = append(l.records, line.Record)
		}
		l.mu.Unlock()
	}
	if err := l.cmd.Wait(); err != nil && l.err == nil {
		l.err = fmt.Errorf("load: %w", err)
	}
}

// Records are the requests that have ended so far, in the order of their ends.
func (l *Load) Records() []echo.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.records)
}

// Since are the requests that were due at or after a time and have ended.
func (l *Load) Since(t time.Time) []echo.Record {
	return slices.DeleteFunc(l.Records(), func(r echo.Record) bool { return r.At.Before(t) })
}

// Stop ends the load, lets requests under way finish, and returns the result.
func (l *Load) Stop() (echo.Result, error) {
	// It may have ended by itself.
	_ = l.cmd.Process.Signal(syscall.SIGTERM)
	<-l.done
	return l.result, l.err
}
