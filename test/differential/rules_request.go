// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"net/netip"
	"slices"
	"strings"
)

const hopByHop = "hop-by-hop headers"

func requestRules() []Rule { return slices.Concat(requestLineRules(), requestFieldRules()) }

// requestLineRules are about the first line and the host.
func requestLineRules() []Rule {
	return []Rule{
		eachRequest("HTTP/1.0 requests", "the server gets HTTP/1.1 from an HTTP/1.0 client", func(m *Message) bool {
			before, ok := strings.CutSuffix(m.Start, " HTTP/1.0")
			if ok {
				m.Start = before + " HTTP/1.1"
			}
			return ok
		}),
		eachRequest("private headers", "an offer to upgrade", func(m *Message) bool {
			return m.remove(func(f Field) bool { return strings.HasPrefix(strings.ToLower(f.Name), "x-nodevoy-") })
		}),
		eachRequest("offers of h2c and TLS", "an offer to upgrade", func(m *Message) bool {
			offers := m.Values("Upgrade")
			return len(offers) > 0 && (offers[0] == "h2c" || strings.HasPrefix(offers[0], "TLS/")) && m.noOffer()
		}),
		eachRequest("referrers", "a `Referer`", func(m *Message) bool {
			return m.remove(func(f Field) bool { return strings.EqualFold(f.Name, "Referer") && strings.Contains(f.Value, "#") })
		}),
		eachRequest("the host of CONNECT", "the host of an absolute URL", func(m *Message) (used bool) {
			if w := m.Words(); w[0] == "CONNECT" {
				for i, f := range m.Fields {
					if strings.EqualFold(f.Name, "Host") && f.Value != w[1] {
						m.Fields[i].Value, used = w[1], true
					}
				}
			}
			return used
		}),
		{Name: "absolute URLs", Row: "the host of an absolute URL", Apply: func(direct, _ *Exchange) (used bool) {
			for _, p := range direct.Pairs {
				used = p.Request != nil && absolute(p.Request) || used
			}
			return used
		}},
		{Name: "no host in HTTP/1.0", Row: "the server gets HTTP/1.1 from an HTTP/1.0 client", Apply: func(direct, seen *Exchange) (used bool) {
			for i, p := range direct.Pairs {
				other := seen.pair(i).Request
				if p.Request == nil || other == nil || len(p.Request.Values("Host")) > 0 {
					continue
				}
				for _, host := range other.Values("Host") {
					if _, err := netip.ParseAddrPort(host); err == nil {
						p.Request.Fields = append(p.Request.Fields, Field{Name: "Host", Value: host})
						used = true
					}
				}
			}
			return used
		}},
	}
}

// requestFieldRules are about the fields, and their order.
func requestFieldRules() []Rule {
	return []Rule{
		eachRequest("hop-by-hop headers of requests", hopByHop, requestHopByHop),
		eachRequest("lists in requests", "repeated headers of a few names", func(m *Message) bool {
			return join(m, joinedInRequests()...)
		}),
		eachRequest("two spellings in requests", "repeated headers of a few names", spellings),
		{Name: "the client closes", Row: hopByHop, Apply: func(direct, _ *Exchange) (used bool) {
			for _, p := range direct.Pairs {
				if p.Request != nil && p.Closes && p.Request.Framing != Tunnel {
					p.Request.Fields = append(p.Request.Fields, Field{Name: p.Connection, Value: "close"})
					used = true
				}
			}
			return used
		}},
		eachRequest("length of no body", "`Content-Length: 0` is added", func(m *Message) bool {
			if m.Framing != None || slices.Contains([]string{"GET", "HEAD", "DELETE", "TRACE", "CONNECT"}, m.Words()[0]) {
				return false
			}
			m.Fields = append(m.Fields, Field{Name: "Content-Length", Value: "0"})
			m.Framing = Length
			return true
		}),
		eachRequest("host first", "`Host` is the first header", func(m *Message) bool { return m.move("Host", true) }),
		eachRequest("transfer coding and upgrade of requests last", "`Host` is the first header", func(m *Message) bool {
			a, b := m.move("Upgrade", false), m.move("Transfer-Encoding", false)
			return a || b
		}),
	}
}

// joinedInRequests are the names whose fields Envoy joins in requests.
func joinedInRequests() []string {
	return strings.Fields("accept accept-encoding access-control-request-headers access-control-request-method authorization cache-control " +
		"content-encoding content-type expect grpc-timeout if-match if-modified-since if-none-match if-unmodified-since origin pragma referer " +
		"user-agent via x-client-trace-id x-forwarded-client-cert x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-request-id")
}

// requestHopByHop removes what is about the client's connection.
func requestHopByHop(m *Message) bool {
	upgrade := m.Has("Connection", "upgrade") && len(m.Values("Upgrade")) > 0
	var named []string
	if m.Words()[0] != "CONNECT" {
		named = m.named()
	}
	used := m.removeNames("Keep-Alive", "Proxy-Connection")
	if !upgrade {
		used = m.remove(func(f Field) bool {
			return contains(append(named, "Connection"), f.Name) && !strings.EqualFold(f.Name, "TE")
		}) || used
	}
	if upgrade {
		return join(m, "te") || used
	}
	te := m.Has("TE", "trailers")
	used = m.remove(func(f Field) bool {
		keep := te
		te = te && !strings.EqualFold(f.Name, "TE")
		return strings.EqualFold(f.Name, "TE") && !keep
	}) || used
	for i, f := range m.Fields {
		if strings.EqualFold(f.Name, "TE") && f.Value != "trailers" {
			m.Fields[i].Value, used = "trailers", true
		}
	}
	return used
}

// noOffer takes away what offers another protocol.
func (m *Message) noOffer() bool {
	if m.Framing == Tunnel {
		m.Framing = m.requestFraming()
	}
	return m.removeNames("Upgrade", "Connection", "HTTP2-Settings")
}

// absolute writes a request's URL as Envoy does.
func absolute(m *Message) bool {
	w := m.Words()
	scheme, rest, ok := strings.Cut(w[1], "://")
	if !ok || w[0] == "CONNECT" {
		return false
	}
	host, path, _ := strings.Cut(rest, "/")
	host, query, ok := strings.Cut(host, "?")
	path = "/" + path
	if ok {
		path = "/?" + query
	}
	host = host[strings.LastIndex(host, "@")+1:]
	before := *m
	target := strings.ToLower(scheme) + "://" + host + path
	m.Start = w[0] + " " + target + " " + w[2]
	fields := slices.Clone(m.Fields)
	for i, f := range fields {
		if strings.EqualFold(f.Name, "Host") {
			fields[i].Value = host
		}
	}
	m.Fields = fields
	if len(m.Values("Host")) == 0 {
		m.Fields = append(m.Fields, Field{Name: "Host", Value: host})
	}
	return m.Start != before.Start || !slices.Equal(m.Fields, before.Fields)
}

// named are the headers that Connection names.
func (m *Message) named() []string {
	var out []string
	for _, v := range m.Values("Connection") {
		for name := range strings.SplitSeq(v, ",") {
			out = append(out, strings.TrimSpace(name))
		}
	}
	return out
}
