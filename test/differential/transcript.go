// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"fmt"
	"slices"
	"strings"
)

// End is how a direction of a connection ended, as its reader sees it.
type End string

// The ends.
const (
	Open     End = "open"
	EOF      End = "closed"
	WasReset End = "reset"
)

// Record is what one side of one connection got, and sent.
type Record struct {
	Got, Sent string
	End       End
	// Finished is set once this side sends no more, and Gone once it has closed the
	// connection: it sees no end then.
	Finished, Gone bool
	// Turns are the replies that the server played on this connection, one for each
	// request.
	Turns []Turn
}

// Turn is a reply that was played: its number, and whether it began before its request
// had come to its end.
type Turn struct {
	Reply int
	Early bool
}

// Transcript is what both sides saw.
type Transcript struct {
	Client Record
	// Server has a record of each connection, in the order of acceptance.
	Server []Record
	// Stalled names steps that waited in vain.
	Stalled []string
}

func (r Record) String() string { return fmt.Sprintf("%s [%s]", short(r.Got), r.End) }

// String shows what came.
func (t Transcript) String() string {
	out := fmt.Sprintf("client got %s\n", t.Client)
	for i, r := range t.Server {
		out += fmt.Sprintf("server got, on connection %d, %s\n", i+1, r)
	}
	for _, s := range t.Stalled {
		out += "waited in vain: " + s + "\n"
	}
	return out
}

// arrived says whether nothing more is to come on a path without a proxy.
func (t Transcript) arrived() bool {
	return len(t.Server) == 1 && t.Client.hasAll(t.Server[0]) && t.Server[0].hasAll(t.Client)
}

// hasAll says whether one side has left, or has seen the end, or has all that the other
// one sent, if that goes on.
func (r Record) hasAll(other Record) bool {
	return r.Gone || r.End != Open || r.Got == other.Sent && !other.Finished
}

// methods are those of the requests in what a client sent.
func methods(sent string) []string {
	var out []string
	messages, _ := Requests(sent)
	for _, m := range messages {
		out = append(out, m.Words()[0])
	}
	return out
}

// Exchange is a transcript of HTTP/1.
type Exchange struct {
	Pairs []*Pair
	// RequestRest and ResponseRest are the beginnings of messages whose headers
	// are not complete.
	RequestRest, ResponseRest string
	// Client and Server are how their last connections ended, as each of them sees it.
	// That it ended is all that is known of the server's: what is on its way when a
	// client goes resets it.
	Client, Server End
	// HalfClosed is set if the client ended its side and stayed, or the server of a tunnel.
	HalfClosed bool
	// ClientGone is set if the client closed its connection itself.
	ClientGone bool
}

// token are the bytes of a field's name.
const token = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~"

// wellFormed returns an error for messages that no server or client would take.
func (e Exchange) wellFormed() error {
	for _, p := range e.Pairs {
		if m := p.Request; m != nil {
			w := m.Words()
			names := slices.ContainsFunc(m.Fields, func(f Field) bool { return strings.Trim(f.Name, token) != "" })
			if method := strings.Trim(w[0], "ABCDEFGHIJKLMNOPQRSTUVWXYZ"); names || w[0] == "" || method != "" || !strings.HasPrefix(w[2], "HTTP/1.") || w[2] == "HTTP/1.1" && len(m.Values("Host")) != 1 {
				return fmt.Errorf("no request: %v", m)
			}
		}
		if m := p.Response; m != nil && (!strings.HasPrefix(m.Start, "HTTP/1.") || m.Status() < 100) {
			return fmt.Errorf("no response: %v", m)
		}
	}
	return nil
}

// Pair is a request, as the server got it, and what the client got for it. Either may
// be missing.
type Pair struct {
	Request  *Message
	Interim  []Message
	Response *Message
	// Old is set if the client speaks HTTP/1.0, and Closes if it wants the connection
	// to end after the response.
	Old, Closes bool
	// Connection is how the request spelled that header's name.
	Connection string
	// Ends is set if Envoy ends the client's connection though the client didn't ask for it.
	Ends bool
	// Early is set if the server began to answer before the request had come to its end.
	Early bool
	// Refused is set if the response is Envoy's.
	Refused bool
}

// take notes what rules need to know of the request after others have changed it.
func (p *Pair) take(m *Message) {
	p.Request = m
	p.Old = m.Words()[2] == "HTTP/1.0"
	p.Connection = "Connection"
	for _, f := range m.Fields {
		if strings.EqualFold(f.Name, p.Connection) {
			p.Connection = f.Name
		}
	}
	p.Closes = m.Has("Connection", "close") || p.Old && !m.Has("Connection", "keep-alive")
}

// exchange takes a transcript apart.
func exchange(t Transcript) Exchange {
	e := Exchange{Client: t.Client.End, ClientGone: t.Client.Gone, Server: Open}
	if e.ClientGone {
		e.Client = Open // It doesn't wait for the end.
	}
	pair := func(i int) *Pair {
		for len(e.Pairs) <= i {
			e.Pairs = append(e.Pairs, &Pair{})
		}
		return e.Pairs[i]
	}
	// Requests are in the order in which they were answered, on whatever connection.
	late := 0
	for _, r := range t.Server {
		late += len(r.Turns)
	}
	for _, r := range t.Server {
		messages, rest := Requests(r.Got)
		e.RequestRest += rest
		if e.Server = r.End; e.Server == WasReset {
			e.Server = EOF
		}
		for i := range messages {
			turn := Turn{Reply: late}
			if i < len(r.Turns) {
				turn = r.Turns[i]
			} else {
				late++
			}
			pair(turn.Reply).take(&messages[i])
			pair(turn.Reply).Early = turn.Early
		}
	}
	messages, rest := Responses(t.Client.Got, methods(t.Client.Sent), t.Client.End != Open)
	e.ResponseRest = rest
	n := 0
	for i := range messages {
		if s := messages[i].Status(); s < 200 && s != 101 {
			pair(n).Interim = append(pair(n).Interim, messages[i])
			continue
		}
		pair(n).Response = &messages[i]
		e.HalfClosed = messages[i].Framing == Tunnel && slices.ContainsFunc(t.Server, func(r Record) bool { return r.Finished })
		n++
	}
	e.HalfClosed = e.HalfClosed || t.Client.Finished && !t.Client.Gone
	return e
}
