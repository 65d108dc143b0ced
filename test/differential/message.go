// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"strconv"
	"strings"
)

// Field is a line of a header or trailer.
type Field struct {
	Name, Value string
	// Odd says that the line was written in an unusual form: white space, a line folded.
	Odd string
}

// Framing is how the end of a body is found.
type Framing string

// The framings of RFC 9112, and a tunnel, which has no HTTP in it.
const (
	None    Framing = "none"
	Length  Framing = "length"
	Chunked Framing = "chunked"
	ToEnd   Framing = "to the end"
	Tunnel  Framing = "tunnel"
)

// Message is an HTTP/1 request or response as it was on the wire.
type Message struct {
	Start    string
	Fields   []Field
	Framing  Framing
	Body     string
	Trailers []Field
	// Odd lists unusual forms outside of fields: bare line feeds, chunk extensions.
	Odd []string
	// Complete is set if nothing is missing.
	Complete bool
}

// Words are the three parts of the start line.
func (m *Message) Words() [3]string {
	var w [3]string
	copy(w[:], strings.SplitN(m.Start, " ", 3))
	return w
}

// Status is a response's status code.
func (m *Message) Status() int {
	n, err := strconv.Atoi(m.Words()[1])
	if err != nil {
		return 0
	}
	return n
}

// Values are those of all fields of this name.
func (m *Message) Values(name string) []string {
	var out []string
	for _, f := range m.Fields {
		if strings.EqualFold(f.Name, name) {
			out = append(out, f.Value)
		}
	}
	return out
}

// Has says whether a list-valued header has this element.
func (m *Message) Has(name, element string) bool {
	for _, v := range m.Values(name) {
		for e := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(e), element) {
				return true
			}
		}
	}
	return false
}

// Requests takes apart what a server got. What is left at the end is of a message
// whose headers are not complete.
func Requests(data string) (messages []Message, rest string) {
	for data != "" {
		m, after, ok := head(data)
		if !ok {
			return messages, data
		}
		data = m.body(after, m.requestFraming(), false)
		if m.Complete && m.leavesHTTP() {
			// What follows is of another protocol, if the server agreed.
			m.Framing, m.Body, data = Tunnel, m.Body+data, ""
		}
		messages = append(messages, m)
	}
	return messages, ""
}

func (m *Message) leavesHTTP() bool {
	return m.Words()[0] == "CONNECT" || m.Has("Connection", "upgrade") && len(m.Values("Upgrade")) > 0
}

func (m *Message) requestFraming() Framing {
	switch {
	case m.Has("Transfer-Encoding", "chunked"):
		return Chunked
	case len(m.Values("Content-Length")) > 0:
		return Length
	}
	return None
}

// Responses takes apart what a client got that sent requests of these methods; ended
// says whether more may come.
func Responses(data string, methods []string, ended bool) (messages []Message, rest string) {
	for i := 0; data != ""; {
		m, after, ok := head(data)
		if !ok {
			return messages, data
		}
		method := ""
		if i < len(methods) {
			method = methods[i]
		}
		data = m.body(after, m.responseFraming(method), ended)
		if m.Status() >= 200 || m.Status() == 101 {
			i++
		}
		messages = append(messages, m)
	}
	return messages, ""
}

func (m *Message) responseFraming(method string) Framing {
	status := m.Status()
	switch {
	case status == 101, method == "CONNECT" && status/100 == 2:
		return Tunnel
	case status < 200, status == 204, status == 304, method == "HEAD":
		return None
	case m.Has("Transfer-Encoding", "chunked"):
		return Chunked
	case len(m.Values("Content-Length")) > 0:
		return Length
	}
	return ToEnd
}

// head reads a start line and header.
func head(data string) (m Message, rest string, ok bool) {
	for data != "" {
		line, after, found := m.line(data)
		if !found {
			return m, data, false
		}
		data = after
		if line != "" {
			m.Start = line
			break
		}
		m.odd("an empty line before the message")
	}
	m.Fields, rest, ok = m.fields(data)
	return m, rest, ok && m.Start != ""
}

func (m *Message) odd(what string) {
	for _, o := range m.Odd {
		if o == what {
			return
		}
	}
	m.Odd = append(m.Odd, what)
}

// line reads one line, without its end.
func (m *Message) line(data string) (line, rest string, ok bool) {
	line, rest, ok = strings.Cut(data, "\n")
	if !ok {
		return "", data, false
	}
	if !strings.HasSuffix(line, "\r") {
		m.odd("a bare line feed")
	}
	return strings.TrimSuffix(line, "\r"), rest, true
}

// fields reads lines up to an empty one.
func (m *Message) fields(data string) (fields []Field, rest string, ok bool) {
	for {
		line, after, found := m.line(data)
		if !found {
			return fields, data, false
		}
		data = after
		if line == "" {
			return fields, data, true
		}
		if n := len(fields); n > 0 && (line[0] == ' ' || line[0] == '\t') {
			last := &fields[n-1]
			last.Value, last.Odd = strings.TrimSpace(last.Value+" "+trim(line)), "a folded line"
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		f := Field{Name: name, Value: trim(value)}
		if line != f.Name+": "+f.Value {
			f.Odd = "white space"
		}
		fields = append(fields, f)
	}
}

func trim(text string) string { return strings.Trim(text, " \t") }

// body reads what follows the header, and returns what follows that.
func (m *Message) body(data string, framing Framing, ended bool) (rest string) {
	m.Framing = framing
	switch framing {
	case Length:
		n, err := strconv.Atoi(m.Values("Content-Length")[0])
		if err != nil || n < 0 {
			n = len(data)
		}
		m.Body, m.Complete = data[:min(n, len(data))], len(data) >= n
		return data[len(m.Body):]
	case Chunked:
		return m.chunks(data)
	case ToEnd:
		m.Body, m.Complete = data, ended
		return ""
	case Tunnel:
		m.Body, m.Complete = data, true
		return ""
	}
	m.Complete = true
	return data
}

func (m *Message) chunks(data string) (rest string) {
	var body strings.Builder
	defer func() { m.Body = body.String() }()
	for {
		line, after, ok := m.line(data)
		if !ok {
			return ""
		}
		digits, ext, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 16, 31)
		if err != nil {
			return ""
		}
		if ext != "" || digits != strconv.FormatUint(n, 16) {
			m.odd("a chunk extension, or odd size")
		}
		if n == 0 {
			m.Trailers, rest, m.Complete = m.fields(after)
			if !m.Complete {
				return ""
			}
			return rest
		}
		body.WriteString(after[:min(int(n), len(after))])
		if len(after) < int(n)+2 {
			return ""
		}
		data = after[n+2:]
	}
}
