// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"slices"
	"strings"
)

// Rules are the changes that test/envoy/README.md lists, in an order in which each
// finds what those before it leave.
func Rules() []Rule {
	return slices.Concat(byteRules(), refusalRules(), oddForms(), requestRules(), responseRules(), endRules())
}

// byteRules are those that hold without HTTP.
func byteRules() []Rule {
	return []Rule{
		{
			Name: "sent and closed at once", Row: "class `detect`: what a client sends and at once closes",
			Bytes: func(c Case, direct, through Transcript) bool {
				return c.Class == Detect && direct.Client.Gone && len(through.Server) == 0
			},
		},
		{
			Name: "sent before a reset", Row: "what is sent right before a reset",
			Bytes: func(_ Case, direct, through Transcript) bool {
				lost := direct.Client.End == WasReset && through.Client.End != Open && strings.HasPrefix(direct.Client.Got, through.Client.Got)
				return lost && len(through.Server) == 1 && direct.Server[0].Got == through.Server[0].Got
			},
		},
		{
			Name: "reset at once", Row: "a connection that the server resets",
			Bytes: func(c Case, direct, _ Transcript) bool {
				return !c.isHTTP() && direct.Client.End == WasReset && direct.Client.Got+direct.Client.Sent == ""
			},
		},
	}
}

// eachRequest is a rule about every request that reaches the server.
func eachRequest(name, row string, change func(*Message) bool) Rule {
	return Rule{Name: name, Row: row, Apply: func(direct, _ *Exchange) (used bool) {
		for _, p := range direct.Pairs {
			if p.Request != nil && change(p.Request) {
				used = true
			}
		}
		return used
	}}
}

// eachResponse is a rule about every response, also those of status 1xx, which is told
// the request.
func eachResponse(name, row string, change func(request, response *Message) bool) Rule {
	return Rule{Name: name, Row: row, Apply: func(direct, _ *Exchange) (used bool) {
		for _, p := range direct.Pairs {
			request := p.Request
			if request == nil {
				request = &Message{}
			}
			for i := range p.Interim {
				used = change(request, &p.Interim[i]) || used
			}
			used = p.Response != nil && !p.Refused && change(request, p.Response) || used
		}
		return used
	}}
}

// eachMessage is a rule about requests and responses alike.
func eachMessage(name, row string, change func(*Message) bool) Rule {
	requests := eachRequest(name, row, change)
	responses := eachResponse(name, row, func(_, m *Message) bool { return change(m) })
	return Rule{Name: name, Row: row, Apply: func(direct, seen *Exchange) bool {
		a, b := requests.Apply(direct, seen), responses.Apply(direct, seen)
		return a || b
	}}
}

// eachFields is a rule about headers and trailers alike.
func eachFields(name, row string, change func(*Field) bool) Rule {
	return eachMessage(name, row, func(m *Message) (used bool) {
		for _, fields := range [][]Field{m.Fields, m.Trailers} {
			for i := range fields {
				used = change(&fields[i]) || used
			}
		}
		return used
	})
}

// remove takes fields away, and says whether there were any.
func (m *Message) remove(which func(Field) bool) bool {
	before := len(m.Fields)
	m.Fields = slices.DeleteFunc(m.Fields, which)
	return len(m.Fields) < before
}

// removeNames takes fields of these names away.
func (m *Message) removeNames(names ...string) bool {
	return m.remove(func(f Field) bool { return contains(names, f.Name) })
}

func contains(names []string, name string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) })
}

// move puts the fields of a name first, or last, and says whether that changes anything.
func (m *Message) move(name string, first bool) bool {
	var with, without []Field
	for _, f := range m.Fields {
		if strings.EqualFold(f.Name, name) {
			with = append(with, f)
		} else {
			without = append(without, f)
		}
	}
	moved := slices.Concat(without, with)
	if first {
		moved = slices.Concat(with, without)
	}
	changed := !slices.Equal(moved, m.Fields)
	m.Fields = moved
	return changed
}

// oddForms are what Envoy writes in the usual form.
func oddForms() []Rule {
	const row = "white space around values"
	return []Rule{
		eachMessage("line ends, chunk extensions", row, func(m *Message) bool {
			used := len(m.Odd) > 0
			m.Odd = nil
			return used
		}),
		eachFields("white space", row, func(f *Field) bool {
			used := f.Odd == "white space"
			if used {
				f.Odd = ""
			}
			return used
		}),
		eachFields("folded lines", "a header on two lines", func(f *Field) bool {
			used := f.Odd != ""
			f.Odd = ""
			return used
		}),
		eachMessage("trailers in lower case", "trailers are in lower case", func(m *Message) (used bool) {
			for i, f := range m.Trailers {
				m.Trailers[i].Name = strings.ToLower(f.Name)
				used = used || f.Name != m.Trailers[i].Name
			}
			return used
		}),
	}
}

// spellings gives all fields of a name the first one's spelling.
func spellings(m *Message) (used bool) {
	first := map[string]string{}
	for i, f := range m.Fields {
		key := strings.ToLower(f.Name)
		if first[key] == "" {
			first[key] = f.Name
		}
		used = used || first[key] != f.Name
		m.Fields[i].Name = first[key]
	}
	return used
}

// join makes one field of all of a name, if it is one of these.
func join(m *Message, names ...string) (used bool) {
	at := map[string]int{}
	out := m.Fields[:0:0]
	for _, f := range m.Fields {
		key := strings.ToLower(f.Name)
		if i, ok := at[key]; ok && contains(names, key) {
			out[i].Value, used = out[i].Value+","+f.Value, true
			continue
		}
		at[key] = len(out)
		out = append(out, f)
	}
	m.Fields = out
	return used
}
