// SPDX-License-Identifier: Apache-2.0

// Package loglevel changes what the agent and Envoy log, for a while: both fall back by
// themselves, also when the agent ends before the time is over.
package loglevel

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/debug/view"
)

const (
	// defaultTime is for how long levels change if nothing is said, maxTime the longest.
	defaultTime, maxTime = 10 * time.Minute, time.Hour
	// retryInterval is the pause after Envoy's level could not be changed back.
	retryInterval = 5 * time.Second
	// endTimeout bounds the same when the agent ends.
	endTimeout = 2 * time.Second
)

// Envoy is an Envoy whose level can be changed.
type Envoy interface {
	LogLevel(ctx context.Context) (string, error)
	SetLogLevel(ctx context.Context, level string) error
	// ResetLogLevel has Envoy log what its command line says. An Envoy that isn't running
	// does.
	ResetLogLevel(ctx context.Context) error
}

// Levels are those of one agent and its Envoy.
type Levels struct {
	agent zap.AtomicLevel
	usual zapcore.Level
	envoy Envoy
	now   func() time.Time
	log   *zap.Logger
	// changed receives when until did.
	changed chan struct{}

	// mu is held while levels change, Envoy's included.
	mu    sync.Mutex
	until time.Time
}

// New takes the agent's present level for the usual one.
func New(agent zap.AtomicLevel, envoy Envoy, now func() time.Time, log *zap.Logger) *Levels {
	return &Levels{agent: agent, usual: agent.Level(), envoy: envoy, now: now, log: log, changed: make(chan struct{}, 1)}
}

// Get is what is logged now.
func (l *Levels) Get(ctx context.Context) view.LogLevel {
	out := view.LogLevel{Agent: l.agent.Level().String()}
	level, err := l.envoy.LogLevel(ctx)
	if out.Envoy = level; err != nil {
		out.EnvoyError = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.until.IsZero() {
		until := l.until
		out.Until = &until
	}
	return out
}

// Set changes levels. If Envoy's can't be, the agent's stays too.
func (l *Levels) Set(ctx context.Context, to view.SetLogLevel) error {
	level, err := check(&to)
	if err != nil {
		return fmt.Errorf("%w: %w", debug.ErrInvalid, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if to.Envoy != "" {
		if err := l.envoy.SetLogLevel(ctx, to.Envoy); err != nil {
			return fmt.Errorf("%w: %w", debug.ErrUnavailable, err)
		}
	}
	if to.Agent != "" {
		l.agent.SetLevel(level)
	}
	l.setUntil(l.now().Add(time.Duration(to.For)))
	l.log.Info("log levels changed", zap.String("agent", to.Agent), zap.String("envoy", to.Envoy), zap.Time("until", l.until))
	return nil
}

// check reads the agent's level, and fills in how long.
func check(to *view.SetLogLevel) (level zapcore.Level, err error) {
	if to.Agent == "" && to.Envoy == "" {
		return level, fmt.Errorf("neither a level of agent nor one of envoy is given")
	}
	if to.Agent != "" {
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, to.Agent) {
			return level, fmt.Errorf("agent %q: want debug, info, warn or error", to.Agent)
		}
		level, err = zapcore.ParseLevel(to.Agent)
	}
	if known := []string{"trace", "debug", "info", "warning", "error", "critical", "off"}; to.Envoy != "" && !slices.Contains(known, to.Envoy) {
		return level, fmt.Errorf("envoy %q: want one of %v", to.Envoy, known)
	}
	if to.For == 0 {
		to.For = view.Duration(defaultTime)
	}
	if d := time.Duration(to.For); d < time.Second || d > maxTime {
		return level, fmt.Errorf("for %s: want 1s to %s", d, maxTime)
	}
	return level, err
}

// setUntil says when levels fall back. The caller holds the lock.
func (l *Levels) setUntil(until time.Time) {
	l.until = until
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Reset changes both back.
func (l *Levels) Reset(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reset(ctx)
}

// reset is Reset. The caller holds the lock.
func (l *Levels) reset(ctx context.Context) error {
	l.agent.SetLevel(l.usual)
	if err := l.envoy.ResetLogLevel(ctx); err != nil {
		return fmt.Errorf("%w: %w", debug.ErrUnavailable, err)
	}
	if !l.until.IsZero() {
		l.log.Info("log levels are as usual")
	}
	l.setUntil(time.Time{})
	return nil
}

// Run changes levels back when it is time, at the end, and at the start: an agent that
// was killed may have left Envoy's. It works until ctx ends.
func (l *Levels) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			l.end(context.WithoutCancel(ctx))
			return nil
		case <-l.changed:
		case <-timer.C:
			if err := l.expire(ctx); err != nil {
				l.log.Warn("envoy's log level not changed back", zap.Error(err))
				timer.Reset(retryInterval)
				continue
			}
		}
		if until := l.deadline(); until.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(until.Sub(l.now()))
		}
	}
}

// expire changes levels back unless it is too early for that.
func (l *Levels) expire(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.now().Before(l.until) {
		return nil
	}
	return l.reset(ctx)
}

// end changes levels back if they are others.
func (l *Levels) end(ctx context.Context) {
	if l.deadline().IsZero() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if err := l.Reset(ctx); err != nil {
		l.log.Warn("envoy's log level not changed back, the next agent does it", zap.Error(err))
	}
}

func (l *Levels) deadline() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until
}
