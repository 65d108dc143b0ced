// SPDX-License-Identifier: Apache-2.0

package why

import (
	"fmt"
	"io"
	"strings"
)

// Width of the columns of links: their state and their name.
const stateWidth, nameWidth = 9, 13

// WriteText prints an answer for a person: the sentence, then a line for each link,
// with what shows it below.
func WriteText(w io.Writer, a *Answer) error {
	var b strings.Builder
	b.WriteString(a.Sentence + "\n\n")
	for i := range a.Chain {
		l := &a.Chain[i]
		fmt.Fprintf(&b, "%-*s%-*s%s\n", stateWidth, l.State, nameWidth, l.Name, l.Text)
		for _, line := range l.lines() {
			fmt.Fprintf(&b, "%*s%s\n", stateWidth+nameWidth, "", line)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// lines are what is below the line of a link.
func (l *Link) lines() []string {
	var lines []string
	if l.Rule != nil {
		lines = append(lines, fmt.Sprintf("%s %s: %s", l.Rule.Table, l.Rule.Chain, l.Rule.Spec), "("+l.Rule.Reason+")")
	}
	for _, entry := range l.Sets {
		where := "in"
		if entry.Missing {
			where = "there is no"
		} else if !entry.There {
			where = "not in"
		}
		lines = append(lines, fmt.Sprintf("%s %s %s", entry.Member, where, entry.Set))
	}
	for i := range l.Backends {
		lines = append(lines, l.Backends[i].line())
	}
	return append(lines, l.Evidence...)
}

// line is a backend in a line.
func (b *Backend) line() string {
	used := "out"
	if b.Used {
		used = "in "
	}
	words := []string{used, b.Address}
	for _, word := range []string{b.Pod, b.Node, b.Zone} {
		if word != "" {
			words = append(words, word)
		}
	}
	text := strings.Join(words, " ") + ": " + b.Why
	if h := b.Seen; h != nil {
		health := "healthy"
		if !h.Healthy {
			health = strings.Join(h.Flags, ", ")
		}
		text += fmt.Sprintf("; in Envoy: %s, weight %d, %d active, %d of %d failed", health, h.Weight, h.Active, h.Failed, h.Total)
	}
	return text
}
