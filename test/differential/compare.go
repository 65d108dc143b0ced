// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"strings"
)

// Rule is a change that the proxy is known to make.
type Rule struct {
	// Name is what is changed, and Row is in the row of the table that documents it.
	Name, Row string
	// Apply makes the change in what was seen directly, and says whether there was
	// anything to change. Where either may be seen, it looks at what was.
	Apply func(direct, seen *Exchange) bool
	// Bytes, if set, says instead whether anything may be seen through the proxy.
	Bytes func(c Case, direct, through Transcript) bool
}

// Difference is something that differs although no rule says so.
type Difference struct {
	// Kind is the same for differences that are alike.
	Kind         string
	Direct, Seen string
}

func (d Difference) String() string {
	return fmt.Sprintf("%s:\n  direct  %s\n  through %s", d.Kind, d.Direct, d.Seen)
}

// Compare says what differs between two plays of a case, and which of the rules applied.
func Compare(c Case, rules []Rule, direct, through Transcript) (differences []Difference, used []string) {
	raw := compareBytes(direct, through)
	for _, r := range rules {
		if r.Bytes != nil && c.Class != HTTP && len(raw) > 0 && r.Bytes(c, direct, through) {
			return nil, []string{r.Name}
		}
	}
	if c.Class == TCP || c.Class == Detect && (len(raw) == 0 || !c.isHTTP()) {
		return raw, nil
	}
	d := &differ{}
	want, seen := exchange(direct), exchange(through)
	for _, r := range rules {
		if r.Apply != nil && r.Apply(&want, &seen) {
			used = append(used, r.Name)
		}
	}
	if c.Unread {
		want.forget()
		seen.forget()
	}
	d.exchanges(want, seen)
	return d.found, used
}

// compareBytes takes nothing for equal that isn't.
func compareBytes(direct, through Transcript) []Difference {
	d := &differ{}
	d.text("number of connections", fmt.Sprint(len(direct.Server)), fmt.Sprint(len(through.Server)))
	d.record("client", direct.Client, through.Client)
	for i := range min(len(direct.Server), len(through.Server)) {
		d.record("server", direct.Server[i], through.Server[i])
	}
	return d.found
}

// differ collects differences.
type differ struct{ found []Difference }

func (d *differ) text(kind, direct, through string) {
	if direct != through {
		d.found = append(d.found, Difference{Kind: kind, Direct: excerpt(direct, through), Seen: excerpt(through, direct)})
	}
}

// excerpt is a text from shortly before it differs from another.
func excerpt(text, other string) string {
	at := 0
	for at < len(text) && at < len(other) && text[at] == other[at] {
		at++
	}
	const before, after = 30, 300
	from, to := max(0, at-before), min(len(text), at+after)
	return fmt.Sprintf("%q (%d to %d of %d bytes)", text[from:to], from, to, len(text))
}

func (d *differ) record(side string, direct, through Record) {
	d.text(side+": bytes", direct.Got, through.Got)
	d.text(side+": end", string(direct.End), string(through.End))
}

func (d *differ) exchanges(direct, through Exchange) {
	// Requests that Envoy answers itself are missing in what the server saw.
	requests, seen := direct.requests(), through.requests()
	for i := range max(len(requests), len(seen)) {
		d.message("request", at(requests, i), at(seen, i))
	}
	for i := range max(len(direct.Pairs), len(through.Pairs)) {
		want, seen := direct.pair(i), through.pair(i)
		what := "response"
		if want.Response != nil && seen.Response != nil && want.Response.Status() != seen.Response.Status() {
			what = fmt.Sprintf("response %d as %d", want.Response.Status(), seen.Response.Status())
		}
		for j := range max(len(want.Interim), len(seen.Interim)) {
			d.message("interim "+what, at(want.Interim, j), at(seen.Interim, j))
		}
		d.message(what, want.Response, seen.Response)
	}
	d.text("rest of a request", direct.RequestRest, through.RequestRest)
	d.text("rest of a response", direct.ResponseRest, through.ResponseRest)
	d.text("end seen by the client", string(direct.Client), string(through.Client))
	d.text("end seen by the server", string(direct.Server), string(through.Server))
}

// forget leaves out what the client got.
func (e *Exchange) forget() {
	e.Client, e.ResponseRest = Open, ""
	for _, p := range e.Pairs {
		p.Interim, p.Response = nil, nil
	}
}

func (e *Exchange) requests() []Message {
	var out []Message
	for _, p := range e.Pairs {
		if p.Request != nil {
			out = append(out, *p.Request)
		}
	}
	return out
}

func (e *Exchange) pair(i int) Pair {
	if i < len(e.Pairs) {
		return *e.Pairs[i]
	}
	return Pair{}
}

func at(messages []Message, i int) *Message {
	if i < len(messages) {
		return &messages[i]
	}
	return nil
}

func (d *differ) message(what string, direct, through *Message) {
	if direct == nil || through == nil {
		d.text(what, direct.String(), through.String())
		return
	}
	d.text(what+": start line", direct.Start, through.Start)
	d.text(what+": fields", lines(direct.Fields), lines(through.Fields))
	d.text(what+": framing", string(direct.Framing), string(through.Framing))
	d.text(what+": body", direct.Body, through.Body)
	d.text(what+": trailers", lines(direct.Trailers), lines(through.Trailers))
	d.text(what+": odd forms", strings.Join(direct.Odd, ", "), strings.Join(through.Odd, ", "))
	d.text(what+": complete", fmt.Sprint(direct.Complete), fmt.Sprint(through.Complete))
}

// String shows a message, or that there is none.
func (m *Message) String() string {
	if m == nil {
		return "none"
	}
	return m.Start + "\n" + lines(m.Fields) + "\n" + m.Body
}

func lines(fields []Field) string {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
		if f.Odd != "" {
			fmt.Fprintf(&b, "(%s)\n", f.Odd)
		}
	}
	return b.String()
}
