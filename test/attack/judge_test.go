// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// fine is a report of an attack that nobody noticed.
func fine() report {
	p := period{Requests: 100, P50: time.Millisecond, P99: 2 * time.Millisecond, Fresh99: 3 * time.Millisecond}
	return report{Before: p, During: p, Tail: p, After: p, Control: p, Peak: memory{Own: 200 << 20, Sockets: 100 << 20}}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(r *report)
		// want is in the only fault; empty: there is none.
		want string
	}{
		{"nobody noticed", func(*report) {}, ""},
		{"Envoy was killed", func(r *report) { r.Ended = "killed by the kernel" }, "killed by the kernel"},
		{"memory", func(r *report) { r.Peak.Sockets = 900 << 20 }, "memory above the limit"},
		{"a lost request", func(r *report) { r.During.Failed, r.During.Errors = 1, []string{"EOF"} }, "1 of 100 requests failed during: EOF"},
		{"a request lost later", func(r *report) { r.Tail.Failed, r.Tail.Errors = 1, []string{"EOF"} }, "at the end"},
		{"no request at all", func(r *report) { r.During = period{} }, "no request during"},
		{"short end", func(r *report) { r.Tail = period{} }, ""},
		{"past Envoy meanwhile", func(r *report) { r.During.Past = 5 }, ""},
		{"past Envoy afterwards", func(r *report) { r.After.Past = 5 }, "went past Envoy after"},
		{"slower", func(r *report) { r.During.P99 = 10 * time.Millisecond }, ""},
		{"too slow", func(r *report) { r.During.P99 = 11 * time.Millisecond }, "p99 during 11.0 ms, above 10.0 ms"},
		{"slow before", func(r *report) { r.Before.P99, r.During.P99 = 4*time.Millisecond, 20*time.Millisecond }, ""},
		{"too slow afterwards", func(r *report) { r.After.P99 = 11 * time.Millisecond }, "p99 after"},
		{"busy machine", func(r *report) { r.During.P99, r.Control.P99 = 50*time.Millisecond, 6*time.Millisecond }, ""},
		{"too slow on a busy machine", func(r *report) { r.During.P99, r.Control.P99 = 51*time.Millisecond, 6*time.Millisecond }, "above 50.0 ms"},
		{"very busy machine", func(r *report) { r.During.P99, r.Control.P99 = 80*time.Millisecond, 40*time.Millisecond }, ""},
		{"not as before", func(r *report) { r.NotRecovered = errors.New("5 connections are active") }, "5 connections are active"},
		{"a refused update", func(r *report) { r.Nacks = 1 }, "1 updates refused"},
	} {
		r := fine()
		c.spoil(&r)
		faults := append(r.judge(1<<30), r.judgeSpeed()...)
		if c.want == "" && len(faults) > 0 || c.want != "" && (len(faults) != 1 || !strings.Contains(faults[0], c.want)) {
			t.Errorf("%s: %q, want %q", c.name, faults, c.want)
		}
	}
}

func TestVerdict(t *testing.T) {
	killed, late := []string{"killed"}, []string{"p99 during"}
	for _, c := range []struct {
		harms, slows flaw
		faults, slow []string
		want         string
	}{
		{flaw{}, flaw{}, nil, nil, "pass"},
		{flaw{}, flaw{}, killed, nil, failed},
		{flaw{}, flaw{}, nil, late, failed},
		{flaw{1, "not mended"}, flaw{}, killed, nil, "pending"},
		{flaw{8, "not mended"}, flaw{}, killed, nil, "pending"},
		{flaw{9, "not mended"}, flaw{}, killed, nil, failed},
		{flaw{8, "not mended"}, flaw{}, nil, nil, "pass, was pending"},
		{flaw{8, "not mended"}, flaw{}, killed, late, failed},
		{flaw{8, "not mended"}, flaw{8, "unfair"}, killed, late, "pending"},
		{flaw{}, flaw{8, "unfair"}, killed, late, failed},
		{flaw{}, flaw{8, "unfair"}, nil, late, "slow"},
		{flaw{}, flaw{9, "unfair"}, nil, late, failed},
		{flaw{}, flaw{8, "unfair"}, nil, nil, "pass"},
	} {
		r := report{Attack: attack{harms: c.harms, slows: c.slows}, Attackers: 8, Faults: c.faults, Slow: c.slow}
		if got := r.verdict(); got != c.want {
			t.Errorf("%+v: %q, want %q", c, got, c.want)
		}
	}
}

// TestTable: each attack has a name of its own, and says what it does and where.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range attacks() {
		if seen[a.Name] || a.Name == "" || a.What == "" || a.run == nil || a.port == 0 {
			t.Errorf("the attack %q is incomplete, or there twice", a.Name)
		}
		seen[a.Name] = true
		if a.Short && a.harms.by(1) != "" {
			t.Errorf("%q is pending and part of the tests", a.Name)
		}
	}
	for name := range harms() {
		if !seen[name] {
			t.Errorf("%q is said to harm, and no attack", name)
		}
	}
}
