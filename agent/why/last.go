// SPDX-License-Identifier: Apache-2.0

package why

import (
	"slices"
	"strconv"
	"strings"

	"github.com/nodevoy/nodevoy/agent/flow"
)

// refusals are about what Envoy refused last.
func (e *explanation) refusals() {
	if len(e.Nacks) == 0 {
		e.link("refused", OK, "Envoy has refused nothing")
		return
	}
	last := e.Nacks[len(e.Nacks)-1]
	concerned := slices.Contains(last.Names, e.XDS.Listener.Name)
	for _, c := range e.XDS.Clusters {
		concerned = concerned || slices.Contains(last.Names, c.Name)
	}
	about := "nothing of these connections"
	if concerned {
		about = "something of these connections"
	}
	l := e.link("refused", OK, "the last refusal was %s ago, and concerned %s", ago(e.Now, last.At), about)
	l.Evidence = []string{last.Type + ": " + oneLine(last.Detail)}
}

// oneLine is a text of several lines as one.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// flows are about the calls that were seen last.
func (e *explanation) flows() {
	const most = 5
	if len(e.Flows) == 0 {
		e.link("flows", Unknown, "none of this pair are kept: only those that failed, and a share of the others, are, unless somebody follows flows")
		return
	}
	failed := 0
	for i := range e.Flows {
		if e.Flows[i].Failed() {
			failed++
		}
	}
	last := &e.Flows[0]
	l := e.link("flows", OK, "%s of this pair recorded, %d failed; the last began %s ago", count(len(e.Flows), "flow"), failed, ago(e.Now, last.Time))
	if last.Failed() {
		l.State = Broken
	}
	for i := range e.Flows[:min(most, len(e.Flows))] {
		l.Evidence = append(l.Evidence, flowLine(&e.Flows[i]))
	}
}

// flowLine is a flow in a line, with what its flags mean.
func flowLine(f *flow.Flow) string {
	words := []string{"flow " + strconv.FormatUint(f.ID, 10) + ",", f.Time.UTC().Format("15:04:05.000"), f.Protocol}
	for _, word := range []string{f.Method, f.Path} {
		if word != "" {
			words = append(words, word)
		}
	}
	if f.Status > 0 {
		words = append(words, "answered "+strconv.Itoa(f.Status))
	}
	if f.Backend.Address.IsValid() {
		words = append(words, "by "+f.Backend.Address.String())
	}
	if f.Backend.Pod != "" {
		words = append(words, "("+f.Backend.Name()+")")
	}
	line := strings.Join(words, " ") + " in " + f.Duration.String()
	for _, flag := range f.Flags {
		line += "; " + string(flag) + ": " + flag.Words()
	}
	return line
}
