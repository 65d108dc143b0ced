// SPDX-License-Identifier: Apache-2.0

// Package differential compares what a client and a server see of each other
// directly with what they see through a proxy. Generate makes a Case, the two
// scripts, from a seed; Run plays it on one path and returns the Transcript; Compare
// applies the Rules, which are the documented changes, to the direct transcript and
// says what else differs; Minimise makes a case that differs as small as it can.
//
// It knows HTTP/1 and plain bytes, and nothing of how proxies are configured.
package differential

import (
	"fmt"
	"strings"
	"time"
)

// Class is what the proxy takes a connection for.
type Class string

// The classes of frontends.
const (
	HTTP   Class = "http"
	TCP    Class = "tcp"
	Detect Class = "detect"
)

// Op is what a step of a script does.
type Op int

// The operations. Sends that follow each other are one write.
const (
	Send         Op = iota // the Data
	Flush                  // write what was sent up to here, then wait for Pause
	AwaitBytes             // until N bytes have come
	AwaitHead              // until the N-th response begins, or one of status 1xx before it
	AwaitDone              // until N responses have come to their end
	AwaitRequest           // until the request that is being answered has
	AwaitPeer              // until the other side has all that was sent
	Meet                   // until both sides are here, and have what was sent
	AwaitEnd               // until the other side has closed its direction
	CloseWrite             // close one direction
	Close                  // close both
	Reset                  // close both at once, discarding what is not sent
)

// Step is one operation of a script.
type Step struct {
	Op    Op
	Data  string
	N     int
	Pause time.Duration
}

// When says when the server begins to play a reply.
type When int

// The beginnings of a reply: as soon as there is a connection, a request's headers, or
// a whole request.
const (
	AtOnce When = iota
	AfterHead
	AfterRequest
)

// Reply is the server's script for a connection or, after it, for one request.
type Reply struct {
	When  When
	Steps []Step
}

// Case is what one client and one server do. The server plays a reply for each
// request that reaches it, on whatever connection, or one for the connection.
type Case struct {
	Seed    uint64
	Class   Class
	Client  []Step
	Replies []Reply
	// Unread says that the client closes the connection before it has what the server
	// sends, so that it is not known how much of that arrives.
	Unread bool
}

// isHTTP says whether the scripts speak HTTP.
func (c Case) isHTTP() bool { return len(c.Replies) > 0 && c.Replies[0].When != AtOnce }

// String shows the case so that somebody can play it by hand.
func (c Case) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, class %s\nclient:\n", c.Seed, c.Class)
	writeSteps(&b, c.Client)
	for i, r := range c.Replies {
		fmt.Fprintf(&b, "server, reply %d %s:\n", i+1, [...]string{"at once", "after the headers", "after the request"}[r.When])
		writeSteps(&b, r.Steps)
	}
	return b.String()
}

func writeSteps(b *strings.Builder, steps []Step) {
	for _, s := range steps {
		fmt.Fprintf(b, "  %s\n", s)
	}
}

// String shows one step.
func (s Step) String() string {
	switch s.Op {
	case Send:
		return "send " + short(s.Data)
	case Flush:
		return fmt.Sprintf("flush, wait %v", s.Pause)
	case AwaitBytes:
		return fmt.Sprintf("await %d bytes", s.N)
	case AwaitHead:
		return fmt.Sprintf("await the beginning of response %d", s.N)
	case AwaitDone:
		return fmt.Sprintf("await %d responses", s.N)
	}
	return map[Op]string{
		AwaitRequest: "await the rest of the request", AwaitPeer: "await that all has arrived", Meet: "await that both are here", AwaitEnd: "await the end",
		CloseWrite: "close for writing", Close: "close", Reset: "reset",
	}[s.Op]
}

// short quotes text, and cuts what is long.
func short(text string) string {
	const most = 400
	if len(text) <= most {
		return fmt.Sprintf("%q", text)
	}
	return fmt.Sprintf("%q… (%d bytes)", text[:most/4], len(text))
}
