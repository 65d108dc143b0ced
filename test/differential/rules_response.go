// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// framed and noBody begin the rows about bodies.
const (
	framed = "a client of HTTP/1.0"
	noBody = "204's length"
)

func responseRules() []Rule {
	return slices.Concat(statusRules(), responseFieldRules(), framingRules())
}

// statusRules are about the first line, and what depends on the status.
func statusRules() []Rule {
	return []Rule{
		eachResponse("reasons", noBody, func(_, m *Message) bool {
			w := m.Words()
			if w[2] != "" {
				return false
			}
			m.Start = w[0] + " " + w[1] + " " + http.StatusText(m.Status())
			return true
		}),
		{Name: "several 1xx", Row: "of several interim responses", Apply: func(direct, _ *Exchange) (used bool) {
			for _, p := range direct.Pairs {
				used = len(p.Interim) > 1 || used
				p.Interim = p.Interim[:min(1, len(p.Interim))]
			}
			return used
		}},
		eachResponse("length of 204", noBody, func(_, m *Message) bool {
			return m.Status() == 204 && m.removeNames("Content-Length")
		}),
		eachResponse("chunks of 304", noBody, func(_, m *Message) bool {
			return m.Status() == 304 && m.removeNames("Transfer-Encoding")
		}),
		eachResponse("upgrades without a switch", "`Upgrade` is dropped", func(q, m *Message) bool {
			return !keepsUpgrade(q, m) && m.removeNames("Upgrade")
		}),
		eachResponse("hop-by-hop headers of responses", hopByHop, func(q, m *Message) bool {
			used := m.removeNames("Keep-Alive", "Proxy-Connection")
			if !keepsUpgrade(q, m) {
				used = m.removeNames("Connection") || used
			}
			return used
		}),
	}
}

// responseFieldRules are about the fields.
func responseFieldRules() []Rule {
	const lists = "repeated headers of a few names"
	return []Rule{
		eachResponse("lists in responses", lists, func(_, m *Message) bool {
			return join(m, joinedInResponses()...)
		}),
		eachResponse("lists of protocols", lists, func(_, m *Message) bool { return m.Status() == 101 && join(m, "upgrade") }),
		eachResponse("two spellings in responses", lists, func(_, m *Message) bool { return spellings(m) }),
		eachPair("date", "`Date` is added", func(p, seen *Pair) bool {
			if len(p.Response.Values("Date")) > 0 || seen.Response == nil {
				return false
			}
			for _, value := range seen.Response.Values("Date") {
				if _, err := http.ParseTime(value); err == nil {
					p.Response.Fields = append(p.Response.Fields, Field{Name: "Date", Value: value})
				}
			}
			return true
		}),
		eachMessage("spelling of chunked", "`Host` is the first header", func(m *Message) (used bool) {
			for i, f := range m.Fields {
				if strings.EqualFold(f.Name, "Transfer-Encoding") && f.Value == "Chunked" {
					m.Fields[i].Value, used = "chunked", true
				}
			}
			return used
		}),
	}
}

// framingRules are about the version, and the end of the body and the connection.
func framingRules() []Rule {
	return []Rule{
		eachPair("version of the response", framed, func(p, _ *Pair) bool {
			version := "HTTP/1.1"
			if p.Old {
				version = "HTTP/1.0"
			}
			w := p.Response.Words()
			p.Response.Start = fmt.Sprintf("%s %s %s", version, w[1], w[2])
			return w[0] != version
		}),
		eachPair("HEAD without a length", "a response to `HEAD`", func(p, _ *Pair) bool {
			m := p.Response
			if p.Old || p.Request == nil || p.Request.Words()[0] != "HEAD" || m.Framing == Tunnel || m.Status() == 204 || m.Status() == 304 || len(m.Values("Content-Length"))+len(m.Values("Transfer-Encoding")) > 0 {
				return false
			}
			m.Fields = append(m.Fields, Field{Name: "Transfer-Encoding", Value: "chunked"})
			return true
		}),
		eachPair("bodies up to the end", framed, func(p, _ *Pair) bool {
			if p.Old || p.Response.Framing != ToEnd {
				return false
			}
			p.Response.Framing = Chunked
			p.Response.Fields = append(p.Response.Fields, Field{Name: "Transfer-Encoding", Value: "chunked"})
			return true
		}),
		eachPair("the end of a refused tunnel", "the body of a response that refuses", func(p, seen *Pair) bool {
			if !p.refusedUpgrade() || p.Response.Framing != Chunked || seen.Response == nil || seen.Response.Body != p.Response.Body {
				return false
			}
			used := p.Response.Complete != seen.Response.Complete
			p.Response.Complete = seen.Response.Complete
			return used
		}),
		eachPair("connection of the response", hopByHop, func(p, _ *Pair) bool {
			value := ""
			switch {
			case p.Closes, p.Ends, p.refusedUpgrade(), p.Old && p.unbounded():
				value, p.Ends = "close", true
			case p.Old:
				value = "keep-alive"
			default:
				return false
			}
			p.Response.Fields = append(p.Response.Fields, Field{Name: "Connection", Value: value})
			return true
		}),
		eachResponse("transfer coding of responses last", "`Host` is the first header", func(_, m *Message) bool { return m.move("Transfer-Encoding", false) }),
	}
}

// joinedInResponses are the names whose fields Envoy joins in responses.
func joinedInResponses() []string {
	return strings.Fields("access-control-allow-credentials access-control-allow-headers access-control-allow-methods access-control-allow-origin " +
		"access-control-expose-headers access-control-max-age age cache-control content-encoding content-type date etag expires grpc-message " +
		"grpc-status last-modified location server vary via x-request-id")
}

// keepsUpgrade says whether a response is about an upgrade to Envoy: it is one, or the
// server names in answer to an offer what it would speak.
func keepsUpgrade(q, m *Message) bool {
	return m.Status() == 101 || q.Framing == Tunnel && m.Has("Connection", "upgrade") && len(m.Values("Upgrade")) > 0
}

// refusedUpgrade says whether the client offered another protocol, and the server doesn't
// speak of it.
func (p *Pair) refusedUpgrade() bool {
	return p.Request != nil && p.Request.Framing == Tunnel && p.Response.Framing != Tunnel && !keepsUpgrade(p.Request, p.Response)
}

// unbounded says whether only its end tells a client of HTTP/1.0 how long the body is.
func (p *Pair) unbounded() bool { return len(p.Response.Values("Content-Length")) == 0 }

// eachPair is a rule about every final response, which is told what was seen.
func eachPair(name, row string, change func(direct, seen *Pair) bool) Rule {
	return Rule{Name: name, Row: row, Apply: func(direct, seen *Exchange) (used bool) {
		for i, p := range direct.Pairs {
			other := seen.pair(i)
			used = p.Response != nil && !p.Refused && change(p, &other) || used
		}
		return used
	}}
}
