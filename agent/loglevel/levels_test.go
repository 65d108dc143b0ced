// SPDX-License-Identifier: Apache-2.0

package loglevel

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// fakeEnvoy has a level, unless it doesn't answer.
type fakeEnvoy struct {
	mu    sync.Mutex
	level string
	err   error
	tries int
}

func (e *fakeEnvoy) LogLevel(context.Context) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.level, e.err
}

func (e *fakeEnvoy) SetLogLevel(_ context.Context, level string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.level = level
	}
	return e.err
}

func (e *fakeEnvoy) ResetLogLevel(ctx context.Context) error {
	e.mu.Lock()
	e.tries++
	e.mu.Unlock()
	return e.SetLogLevel(ctx, "warning")
}

// answers with an error, or again without one.
func (e *fakeEnvoy) answers(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = err
}

func (e *fakeEnvoy) resets() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tries
}

// running are levels that run in a bubble, and what ends them.
func running(t *testing.T, envoy *fakeEnvoy) (l *Levels, end func()) {
	t.Helper()
	l = New(zap.NewAtomicLevelAt(zap.WarnLevel), envoy, time.Now, zap.NewNop())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	synctest.Wait()
	return l, func() { cancel(); <-done }
}

func (l *Levels) are(t *testing.T, agent, envoy string, changed bool) {
	t.Helper()
	synctest.Wait()
	if got := l.Get(t.Context()); got.Agent != agent || got.Envoy != envoy || (got.Until != nil) != changed {
		t.Errorf("levels %+v, want %s, %s, changed %v", got, agent, envoy, changed)
	}
}

// TestLevelsFallBack when the time is over, counted from the last change; when they are
// told to; when the agent ends; and at the start of the next after one that was killed.
func TestLevelsFallBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy := &fakeEnvoy{level: "trace"}
		l, end := running(t, envoy)
		l.are(t, "warn", "warning", false)
		set := func(to view.SetLogLevel) {
			t.Helper()
			if err := l.Set(t.Context(), to); err != nil {
				t.Fatal(err)
			}
		}
		set(view.SetLogLevel{Agent: "debug"})
		l.are(t, "debug", "warning", true)
		time.Sleep(defaultTime - time.Second)
		set(view.SetLogLevel{Envoy: "debug", For: view.Duration(time.Minute)})
		time.Sleep(59 * time.Second)
		l.are(t, "debug", "debug", true)
		time.Sleep(2 * time.Second)
		l.are(t, "warn", "warning", false)
		set(view.SetLogLevel{Agent: "error", Envoy: "off", For: view.Duration(maxTime)})
		l.are(t, "error", "off", true)
		if err := l.Reset(t.Context()); err != nil {
			t.Error(err)
		}
		l.are(t, "warn", "warning", false)
		tries := envoy.resets()
		time.Sleep(2 * maxTime)
		if envoy.resets() != tries {
			t.Errorf("changed back %d times more", envoy.resets()-tries)
		}
		set(view.SetLogLevel{Envoy: "trace"})
		end()
		l.are(t, "warn", "warning", false)
	})
}

// TestEnvoyThatDoesNotAnswer is asked again until its level is what it was; a change that
// it doesn't take changes nothing.
func TestEnvoyThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		envoy := &fakeEnvoy{level: "trace", err: errors.New("hangs")}
		l, end := running(t, envoy)
		if err := l.Set(t.Context(), view.SetLogLevel{Agent: "debug", Envoy: "debug"}); !errors.Is(err, debug.ErrUnavailable) {
			t.Errorf("set: %v", err)
		}
		if got := l.Get(t.Context()); got.Agent != "warn" || got.EnvoyError != "hangs" || got.Until != nil {
			t.Errorf("levels %+v", got)
		}
		time.Sleep(10*retryInterval + time.Second)
		if envoy.resets() != 11 {
			t.Errorf("%d tries", envoy.resets())
		}
		// What somebody asks for meanwhile is not taken for what was left.
		envoy.answers(nil)
		if err := l.Set(t.Context(), view.SetLogLevel{Envoy: "debug"}); err != nil {
			t.Error(err)
		}
		time.Sleep(retryInterval)
		l.are(t, "warn", "debug", true)
		envoy.answers(errors.New("hangs"))
		time.Sleep(defaultTime + time.Minute)
		envoy.answers(nil)
		time.Sleep(retryInterval)
		l.are(t, "warn", "warning", false)
		end()
	})
}

func TestLevelsThatAreNone(t *testing.T) {
	l := New(zap.NewAtomicLevel(), &fakeEnvoy{}, time.Now, zap.NewNop())
	for says, to := range map[string]view.SetLogLevel{
		"neither": {For: view.Duration(time.Minute)},
		`"loud"`:  {Agent: "loud"},
		`"fatal"`: {Agent: "fatal"},
		`"warn"`:  {Envoy: "warn"},
		"1h0m0s":  {Agent: "debug", For: view.Duration(maxTime + 1)},
		"want 1s": {Agent: "debug", For: view.Duration(-time.Second)},
	} {
		if err := l.Set(t.Context(), to); !errors.Is(err, debug.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %s", to, err, says)
		}
	}
}
