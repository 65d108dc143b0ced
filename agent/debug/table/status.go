// SPDX-License-Identifier: Apache-2.0

// Package table prints what the agent tells, for people.
package table

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// Status prints the status for a person: what state the node is in, then
// pods, frontends and problems as tables. now is the time ages are counted to.
func Status(w io.Writer, v *view.Status, now time.Time) error {
	t := &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row("NODE", v.Node)
	phase := v.Phase
	if v.Reason != "" {
		phase += ": " + v.Reason
	}
	t.row("STATE", phase)
	if v.NotReady != "" && v.NotReady != phase {
		t.row("NOT READY", oneLine(v.NotReady))
	}
	if v.Stuck != "" {
		t.row("STUCK", oneLine(v.Stuck))
	}
	t.row("MODE", modeLine(v))
	t.rows("OBJECTS", watchLines(v.Watches, now))
	t.row("ENVOY", envoyLine(&v.Envoy, now))
	t.row("KERNEL", kernelLine(&v.Redirect, now))
	if v.KernelFlows != "" {
		t.row("FLOWS", "connections past Envoy are not shown, or not all: "+oneLine(v.KernelFlows))
	}
	if v.Memory.Limit > 0 || len(v.Memory.Left) > 0 {
		t.rows("MEMORY", memoryLines(&v.Memory))
	}
	if v.Redirect.Leftover != "" {
		t.row("LEFT", "of the other mode: "+v.Redirect.Leftover)
	}
	if v.PendingSince != nil {
		t.row("PENDING", "a change has waited for "+age(*v.PendingSince, now))
	}
	t.rows("BECAUSE", v.Redirect.Why)
	t.flush()
	t.pods(v.Pods, v.Redirect.Mode == podMode)
	t.frontends(v)
	t.limits(v.Limits)
	t.nacks(v.Envoy.LastNacks, now)
	if len(v.Problems) > 0 {
		t.line("\nPROBLEMS")
		for _, p := range v.Problems {
			t.row(p)
		}
	}
	return t.err
}

// table writes rows and keeps the first error.
type table struct {
	w   *tabwriter.Writer
	err error
}

func (t *table) line(s string) {
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.w, s)
	}
}

func (t *table) row(cells ...string) {
	for i := range cells {
		cells[i] = Printable(cells[i])
	}
	t.line(strings.Join(cells, "\t"))
}

// rows has one line in each, the first beside the head.
func (t *table) rows(head string, lines []string) {
	for _, line := range lines {
		t.row(head, line)
		head = ""
	}
}

func (t *table) flush() {
	if t.err == nil {
		t.err = t.w.Flush()
	}
}

// limits lists them, as README does.
func (t *table) limits(limits []view.Limit) {
	if len(limits) == 0 {
		return
	}
	t.line("")
	t.row("LIMIT", "AT MOST", "ABOVE IT")
	for _, l := range limits {
		t.row(l.What, l.Most, l.Above)
	}
	t.flush()
}

// podMode is the mode in which redirection is in the pods themselves.
const podMode = "pod"

// pods lists them, with their network namespaces where these matter.
func (t *table) pods(pods []view.Pod, namespaces bool) {
	t.line("")
	head := []string{"NAMESPACE", "POD", "IP", "ENROLLED", "REDIRECTED", "WHY"}
	if namespaces {
		head = append(head, "NETWORK NAMESPACE")
	}
	t.row(head...)
	for _, p := range pods {
		row := []string{p.Namespace, p.Name, dash(strings.Join(p.IPs, ",")), yesNo(p.Enrolled), yesNo(p.Redirected), oneLine(p.Why())}
		if namespaces {
			row = append(row, dash(p.Netns))
		}
		t.row(row...)
	}
	t.flush()
}

// Printable escapes what is no printable character, as Go's strings are written: what
// users wrote can then make no line or column of its own, and nothing that a terminal
// acts on.
func Printable(s string) string {
	var out strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&out, `\x%02x`, s[i])
		case strconv.IsPrint(r):
			out.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			out.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return out.String()
}

// oneLine keeps what others wrote from breaking the table.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\t' }), "; ")
}

func (t *table) frontends(v *view.Status) {
	t.line("")
	if len(v.Frontends) == 0 {
		t.line(noFrontends(v.FrontendCount))
		t.flush()
		return
	}
	t.row("FRONTEND", "SERVICE", "CLASS", "IN USE", "BACKENDS", "WHY")
	for _, f := range v.Frontends {
		why := f.Why
		if f.Bypass != "" {
			why = "not redirected: " + f.Bypass
		}
		t.row(f.Address, f.Service, f.Class, yesNo(f.InUse), backends(f.Backends), why)
	}
	t.flush()
}

func (t *table) nacks(nacks []view.Nack, now time.Time) {
	if len(nacks) == 0 {
		return
	}
	t.line("")
	t.row("REFUSED BY ENVOY", "AGE", "DETAIL")
	for _, n := range nacks {
		t.row(n.Type, age(n.At, now), oneLine(n.Detail))
	}
	t.flush()
}

func envoyLine(e *view.Envoy, now time.Time) string {
	if !e.Connected {
		return "not connected"
	}
	s := "connected"
	if e.Version != "" {
		s = e.Version + ", connected"
	}
	if e.Since != nil {
		s += " for " + age(*e.Since, now)
	}
	if e.ListenersAcked {
		s += ", listeners accepted"
	} else {
		s += ", listeners NOT accepted"
	}
	s += fmt.Sprintf(", %d updates unanswered, %d refused", e.Unanswered, e.Nacks)
	if e.ProbeError != "" {
		s += ", " + e.ProbeError
	}
	return s
}

// watchLines says which kinds of objects are not read and followed, or that all are.
func watchLines(watches []view.Watch, now time.Time) []string {
	var lines []string
	for _, w := range watches {
		line := w.Kind
		switch {
		case w.Error != "" && w.Synced:
			line += " NOT followed"
		case w.Error != "":
			line += " NOT read"
		case w.Absent:
			line += " not served"
		case w.Synced:
			continue
		default:
			line += " not read yet"
		}
		if w.Since != nil {
			line += " for " + age(*w.Since, now)
		}
		if w.Error != "" {
			line += ": " + oneLine(w.Error)
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 && len(watches) > 0 {
		lines = []string{fmt.Sprintf("all %d kinds read and followed", len(watches))}
	}
	return lines
}

func modeLine(v *view.Status) string {
	r := &v.Redirect
	s := r.Mode
	if r.Mode != podMode && r.Mechanism != "" {
		s += ", by " + r.Mechanism
	}
	if r.Backend != "" {
		s += " (iptables-" + r.Backend + ")"
	}
	enrolled, redirected := 0, 0
	for _, p := range v.Pods {
		if p.Enrolled {
			enrolled++
		}
		if p.Enrolled && p.Redirected {
			redirected++
		}
	}
	return fmt.Sprintf("%s, %d of %d enrolled pods redirected", s, redirected, enrolled)
}

// maxLeft is how many Services that are left to kube-proxy are listed.
const maxLeft = 10

// memoryLines say what Services in use take, and which are left to kube-proxy, those
// with most frontends first.
func memoryLines(m *view.Memory) []string {
	limit := ""
	if m.Limit > 0 {
		limit = fmt.Sprintf(" of %d", m.Limit>>20)
	}
	lines := []string{fmt.Sprintf("%d%s MiB of Envoy's for Services in use", m.Used>>20, limit)}
	if m.LeftCount == 0 {
		return lines
	}
	return append(lines, fmt.Sprintf("%d frontends LEFT to kube-proxy for want of it: %s", m.LeftCount, strings.Join(MostLeft(m.Left, m.LeftServices), ", ")))
}

// MostLeft names the Services of which frontends are left, with their number, those
// with most first, as many as a line has room for. services is how many there are.
func MostLeft(left map[string]int, services int) []string {
	names := slices.SortedFunc(maps.Keys(left), func(a, b string) int {
		return cmp.Or(cmp.Compare(left[b], left[a]), cmp.Compare(a, b))
	})
	var shown []string
	for _, name := range names[:min(len(names), maxLeft)] {
		shown = append(shown, fmt.Sprintf("%s (%d)", name, left[name]))
	}
	if more := services - len(shown); more > 0 {
		shown = append(shown, fmt.Sprintf("and %d other Services", more))
	}
	return shown
}

func kernelLine(r *view.Redirect, now time.Time) string {
	s := fmt.Sprintf("%d rules", r.Rules)
	if r.Applied != nil {
		s += ", applied " + age(*r.Applied, now) + " ago"
	} else {
		s += ", not applied yet"
	}
	s += fmt.Sprintf(", drift repaired %d times", r.DriftRepaired)
	if r.Error != "" {
		s += ", FAILING: " + oneLine(r.Error)
	}
	if r.CheckError != "" {
		s += ", CAN'T TELL whether they are in place: " + oneLine(r.CheckError)
	}
	return s
}

// backends lists up to three and counts the rest.
func backends(all []view.Backend) string {
	const shown = 3
	names := make([]string, 0, shown)
	for i, b := range all {
		if i == shown {
			return fmt.Sprintf("%s, +%d", strings.Join(names, ", "), len(all)-shown)
		}
		name := b.Address
		if b.Pod != "" {
			name = b.Pod
		}
		names = append(names, name)
	}
	return dash(strings.Join(names, ", "))
}

// noFrontends stands for the table when there is nothing to list; count is of
// all frontends, by class.
func noFrontends(count map[string]int) string {
	total := 0
	for _, n := range count {
		total += n
	}
	if total == 0 {
		return "No frontend is known."
	}
	return fmt.Sprintf("No frontend is in use (%d are known, %d of them left to kube-proxy; --all shows them).", total, count["bypass"])
}

func age(t, now time.Time) string { return now.Sub(t).Round(time.Second).String() }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
