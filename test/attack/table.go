// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// failed is the verdict that fails the suite.
const failed = "FAIL"

// verdict is one word about a report.
func (r report) verdict() string {
	harms, slows := r.Attack.harms.by(r.Attackers), r.Attack.slows.by(r.Attackers)
	switch {
	case len(r.Faults) > 0 && harms == "" || len(r.Slow) > 0 && slows == "":
		return failed
	case len(r.Faults) > 0:
		return "pending"
	case len(r.Slow) > 0:
		return "slow"
	case harms != "":
		return "pass, was pending"
	}
	return "pass"
}

// line is a report in columns.
func (r report) line() string {
	lost := r.Before.Failed + r.During.Failed + r.Tail.Failed + r.After.Failed
	busy := ""
	if r.busy() {
		busy = fmt.Sprintf(" (busy machine: %.1f without Envoy)", float64(r.Control.P99)/1e6)
	}
	columns := []string{
		r.Attack.Name, string(r.Mode), fmt.Sprint(r.Attackers),
		fmt.Sprintf("%d+%d", r.Peak.Own>>20, r.Peak.Sockets>>20), fmt.Sprintf("%d/%d", r.Start.total()>>20, r.End.total()>>20),
		pair(r.Before), pair(r.During), fmt.Sprint(lost), r.verdict() + busy,
	}
	return strings.Join(columns, "\t")
}

func pair(p period) string {
	ms := func(ds ...int64) string {
		var out []string
		for _, d := range ds {
			out = append(out, fmt.Sprintf("%.1f", float64(d)/1e6))
		}
		return strings.Join(out, "/")
	}
	return ms(int64(p.P50), int64(p.P99), int64(p.Fresh99))
}

// printTable prints a line for each attack.
func printTable(out io.Writer, reports []report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ATTACK\tMODE\tPODS\tPEAK MiB\tRSS BEFORE/AFTER\tMS BEFORE: P50/P99/NEW P99\tDURING\tFAILED\tVERDICT")
	for _, r := range reports {
		fmt.Fprintln(w, r.line())
	}
	return w.Flush()
}

// progress is a report in full.
func (r report) progress() string {
	text := fmt.Sprintf("%s, %s mode, by %d: %s\n    %s\n    %s", r.Attack.Name, r.Mode, r.Attackers, r.Attack.What, r.Sent,
		strings.ReplaceAll(r.line(), "\t", "  "))
	for _, fault := range slices.Concat(r.Faults, r.Slow) {
		text += "\n    " + fault
	}
	if past := r.During.Past + r.Tail.Past; past > 0 {
		text += fmt.Sprintf("\n    %d of the victim's requests went past Envoy meanwhile", past)
	}
	if r.Ended == "" && r.NotRecovered == nil {
		text += fmt.Sprintf("\n    as before after %.1f s", r.Recovered.Seconds())
	}
	return text
}
