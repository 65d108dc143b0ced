// SPDX-License-Identifier: Apache-2.0

package differential

import "strings"

// refusalRules are about requests that Envoy answers itself.
func refusalRules() []Rule {
	return []Rule{
		refusal("options of the server", "`OPTIONS *`", 404, func(m *Message) bool {
			return m.Words()[1] == "*"
		}),
		refusal("a query without a path", "URLs of other schemes", 404, func(m *Message) bool { return m.Words()[1] == "http://web?q" }),
		refusal("other schemes", "URLs of other schemes", 400, func(m *Message) bool { return strings.HasPrefix(m.Words()[1], "ftp:") }),
		{Name: "204 with a body's length", Row: "a response that Envoy's parser refuses", Apply: func(direct, seen *Exchange) (used bool) {
			for i, p := range direct.Pairs {
				other := seen.pair(i).Response
				if p.Response != nil && p.Response.Status() == 204 && !p.Response.empty() && other != nil && other.Status() == 502 {
					p.Response, p.Refused, used = other, true, true
				}
			}
			return used
		}},
		{Name: "an answer before the body", Row: "`Connection: close` is added", Apply: answeredEarly},
		{Name: "WebSockets refused without an error", Row: "a response to an upgrade to `websocket`", Apply: refusedWebSocket},
		{Name: "closed at once", Row: "what a client sends before it closes at once", Apply: closedAtOnce},
		{Name: "half-close", Row: "a client that ends its side", Apply: halfClose},
		{Name: "no answer", Row: "a server that closes the connection under a request", Apply: unanswered},
		{Name: "headers without an end", Row: "headers or trailers that have no end", Apply: func(direct, _ *Exchange) bool {
			used := direct.RequestRest != ""
			direct.RequestRest = ""
			for _, p := range direct.Pairs {
				for _, m := range []*Message{p.Request, p.Response} {
					if m != nil && !m.Complete && len(m.Trailers) > 0 {
						m.Trailers, used = nil, true
					}
				}
			}
			return used
		}},
	}
}

// answeredEarly lets the rest of a request be left out that was answered before its end.
func answeredEarly(direct, seen *Exchange) (used bool) {
	for i, p := range direct.Pairs {
		other := seen.pair(i)
		if p.Request == nil || p.Response == nil || other.Request == nil || other.Response == nil || !other.Early || !other.Response.Has("Connection", "close") {
			continue
		}
		p.Request.cut(other.Request)
		p.Ends, p.Early, used = true, true, true
	}
	return used
}

// refusedWebSocket is about handshakes that the server answers with a status below 400.
func refusedWebSocket(direct, seen *Exchange) (used bool) {
	for i, p := range direct.Pairs {
		other := seen.pair(i).Response
		if p.Request == nil || p.Response == nil || other == nil || !p.Request.Has("Upgrade", "websocket") || p.Request.Framing != Tunnel {
			continue
		}
		if status := p.Response.Status(); status >= 200 && status < 400 && status == other.Status() && other.Body == "" {
			p.Response, p.Refused, p.Ends, used = other, true, true, true
		}
	}
	return used
}

// closedAtOnce lets a request not arrive, or not to its end, whose client closes the connection at once.
func closedAtOnce(direct, seen *Exchange) bool {
	n := len(direct.Pairs)
	if !direct.ClientGone || n == 0 || direct.Pairs[n-1].Request == nil {
		return false
	}
	request, other := direct.Pairs[n-1].Request, seen.pair(n-1).Request
	if other != nil && other.Complete {
		return false
	}
	if direct.Pairs[n-1].Request = nil; other != nil {
		request.cut(other)
		direct.Pairs[n-1].Request = request
	}
	direct.Server = seen.Server
	return true
}

// unanswered is about servers that end the connection without a response.
func unanswered(direct, seen *Exchange) (used bool) {
	for i, p := range direct.Pairs {
		other := seen.pair(i)
		if p.Response == nil && p.Request != nil && p.Request.Complete && !direct.ClientGone && other.Response != nil && unavailable(other.Response.Status(), direct.ResponseRest) {
			p.Response, p.Interim, direct.ResponseRest, p.Refused, used = other.Response, other.Interim, "", true, true
		}
	}
	return used
}

// unavailable says whether a status is Envoy's for a server that ends without a response,
// or in the headers of one.
func unavailable(status int, rest string) bool { return status == 503 || status == 502 && rest != "" }

// refusal is a rule about requests that are answered with a status. If that ends the
// connection, so it does those that come after them.
func refusal(name, row string, status int, which func(*Message) bool) Rule {
	return Rule{Name: name, Row: row, Apply: func(direct, seen *Exchange) (used bool) {
		for i, p := range direct.Pairs {
			other := seen.pair(i)
			if p.Request == nil || !which(p.Request) || other.Request != nil || other.Response == nil || other.Response.Status() != status {
				continue
			}
			used = true
			p.Request, p.Interim, p.Response, p.Refused = nil, nil, other.Response, true
			direct.ResponseRest = seen.ResponseRest // In answer to HEAD, too, there is a body.
			if other.Response.Has("Connection", "close") {
				direct.Pairs = direct.Pairs[:i+1]
				p.Ends = true
				return true
			}
		}
		return used
	}}
}

// empty says whether no body is announced.
func (m *Message) empty() bool {
	return strings.Trim(strings.Join(m.Values("Content-Length"), ""), "0") == "" && len(m.Values("Transfer-Encoding")) == 0
}

// halfClose lets an exchange be cut off in which one side has ended its direction: the
// client, or either of them in a tunnel.
func halfClose(direct, seen *Exchange) bool {
	n := len(direct.Pairs)
	if n == 0 || !direct.HalfClosed {
		return false
	}
	p, other := direct.Pairs[n-1], seen.pair(n-1)
	if p.Request != nil && other.Request == nil {
		p.Request = nil
	}
	if p.Request != nil {
		p.Request.cut(other.Request)
	}
	if p.Response != nil && other.Response == nil {
		p.Interim, p.Response, p.Refused = other.Interim, nil, true
	}
	if p.Response != nil {
		p.Response.cut(other.Response)
	}
	direct.Client, direct.Server = seen.Client, seen.Server
	return true
}

// cut takes from the body what another has not.
func (m *Message) cut(other *Message) {
	if strings.HasPrefix(m.Body, other.Body) {
		m.Body, m.Complete = other.Body, other.Complete
	}
}

func endRules() []Rule {
	return []Rule{
		{Name: "the server closes", Row: hopByHop, Apply: func(direct, seen *Exchange) bool {
			last := direct.last()
			if last == nil || direct.ClientGone || direct.HalfClosed {
				return false
			}
			want := Open
			if last.Closes || last.Ends || !last.Response.Complete {
				want = EOF
			}
			if (last.Refused || last.Early) && last.Ends && seen.Client != Open {
				want = seen.Client // What came after the request is in the way of a quiet end.
			}
			used := direct.Client != want
			direct.Client = want
			return used
		}},
		{Name: "the server's connection is kept", Row: hopByHop, Apply: func(direct, seen *Exchange) bool {
			if len(direct.requests()) > 0 && direct.last() == nil && !direct.answerable() {
				return false
			}
			used := direct.Server != seen.Server
			direct.Server = seen.Server
			return used
		}},
	}
}

// answerable says whether the client left after a whole request: then the server may have
// answered before Envoy knew.
func (e *Exchange) answerable() bool {
	last := e.Pairs[len(e.Pairs)-1].Request
	return e.ClientGone && last != nil && last.Complete && last.Framing != Tunnel
}

// last is the last pair, if it has a response and went on with HTTP.
func (e *Exchange) last() *Pair {
	n := len(e.Pairs)
	if n == 0 || e.Pairs[n-1].Response == nil || e.Pairs[n-1].Response.Framing == Tunnel {
		return nil
	}
	return e.Pairs[n-1]
}
