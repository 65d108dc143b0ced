// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"
)

// endpoint is one side of a connection.
type endpoint struct {
	run       *run
	name      string
	conn      *net.TCPConn
	got, sent []byte
	end       End
	// finished is set once this side sends no more, gone once it has closed.
	finished, gone bool
	// turns are the replies that have begun, and served is how many have ended.
	turns  []Turn
	served int
}

func (r *run) endpoint(conn *net.TCPConn, name string) *endpoint {
	e := &endpoint{run: r, name: name, conn: conn, end: Open}
	r.tasks.Go(e.read)
	return e
}

func (e *endpoint) record() Record {
	return Record{Got: string(e.got), Sent: string(e.sent), End: e.end, Finished: e.finished || e.gone, Gone: e.gone, Turns: slices.Clone(e.turns)}
}

// read notes all that comes, and how it ends.
func (e *endpoint) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := e.conn.Read(buf)
		e.run.update(func() {
			if e.gone {
				return
			}
			e.got = append(e.got, buf[:n]...)
			if err != nil {
				e.end = endOf(err)
			}
		})
		if err != nil {
			return
		}
	}
}

// answer plays a reply for each request that comes on this connection.
func (e *endpoint) answer(ctx context.Context) {
	for {
		var reply *Reply
		begun := func() bool {
			if e.run.replies == len(e.run.c.Replies) || !e.due(e.run.c.Replies[e.run.replies].When) {
				return e.end != Open || e.gone
			}
			reply = &e.run.c.Replies[e.run.replies]
			e.turns = append(e.turns, Turn{Reply: e.run.replies, Early: e.requests() <= e.served})
			e.run.replies++
			e.run.playing++
			return true
		}
		if !e.run.await(ctx, time.Hour, begun) || reply == nil {
			return
		}
		e.play(ctx, reply.Steps)
		e.run.update(func() {
			e.run.playing--
			e.served++
		})
	}
}

// due says whether a reply begins now.
func (e *endpoint) due(when When) bool {
	if when == AtOnce {
		return e.served == 0
	}
	requests, _ := Requests(string(e.got))
	if len(requests) <= e.served {
		return false
	}
	return when == AfterHead || requests[e.served].Complete
}

// play does the steps, until one waits in vain or the connection is closed.
func (e *endpoint) play(ctx context.Context, steps []Step) {
	var pending []byte
	for i, s := range steps {
		if s.Op == Send {
			pending = append(pending, s.Data...)
			if i+1 < len(steps) && steps[i+1].Op == Send {
				continue
			}
			if !e.write(pending) {
				return
			}
			pending = nil
			continue
		}
		if !e.step(ctx, s) {
			return
		}
	}
}

// write sends, and says whether the connection takes more.
func (e *endpoint) write(data []byte) bool {
	e.run.update(func() { e.sent = append(e.sent, data...) })
	if err := e.conn.SetWriteDeadline(time.Now().Add(e.run.path.Patience)); err != nil {
		return false
	}
	_, err := e.conn.Write(data)
	return err == nil
}

// step does one operation other than to send, and says whether to go on.
func (e *endpoint) step(ctx context.Context, s Step) bool {
	var condition func() bool
	switch s.Op {
	case Flush:
		return pause(ctx, s.Pause)
	case CloseWrite:
		e.run.update(func() { e.finished = true })
		return e.conn.CloseWrite() == nil
	case Close:
		e.run.update(func() { e.gone = true })
		return e.conn.Close() == nil
	case Reset:
		e.abort()
		return true
	case AwaitBytes:
		condition = func() bool { return len(e.got) >= s.N }
	case AwaitHead, AwaitDone:
		condition = func() bool { return e.responses(s.Op == AwaitDone) >= s.N }
	case AwaitRequest:
		condition = func() bool { return e.requests() > e.served }
	case AwaitPeer:
		condition = e.taken
	case Meet:
		e.run.update(func() { e.run.here[e.name]++ })
		condition = func() bool {
			return e.run.here["client"] == e.run.here["server"] && e.run.client.taken() && e.run.servers[0].taken()
		}
	case AwaitEnd:
		condition = func() bool { return e.end != Open }
	}
	// After the end, nothing more comes.
	ok := e.run.await(ctx, e.run.path.Patience, func() bool { return condition() || e.end != Open })
	if !ok {
		e.run.update(func() { e.run.stalled = append(e.run.stalled, e.name+": "+s.String()) })
	}
	return ok
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// requests counts those that a server has to their end.
func (e *endpoint) requests() int {
	all, _ := Requests(string(e.got))
	if n := len(all); n > 0 && !all[n-1].Complete {
		return n - 1
	}
	return len(all)
}

// responses counts those that a client has: their first headers, which may be those of
// a response 1xx before it, or all of them. Responses 1xx count for nothing by themselves.
func (e *endpoint) responses(complete bool) int {
	all, _ := Responses(string(e.got), methods(string(e.sent)), e.end != Open)
	begun, done := 0, 0
	for _, m := range all {
		begun = done + 1
		if (m.Status() >= 200 || m.Status() == 101) && m.Complete {
			done++
		}
	}
	if complete {
		return done
	}
	return begun
}

// taken says whether the other sides have all that this side sent: as bytes, or, of a
// body in HTTP, as many of them.
func (e *endpoint) taken() bool {
	if e.name == "client" {
		return took(e.run.servers, []*endpoint{e.run.client})
	}
	return took([]*endpoint{e.run.client}, e.run.servers)
}

func took(takers, senders []*endpoint) bool {
	sent, got := 0, 0
	for _, s := range senders {
		sent += s.volume(s.sent)
	}
	for _, t := range takers {
		if t.end != Open || t.gone {
			return true
		}
		if len(senders) > 0 {
			got += senders[0].volume(t.got)
		}
	}
	return got >= sent
}

// volume is how much of the data is no header.
func (e *endpoint) volume(data []byte) int {
	if !e.run.c.isHTTP() {
		return len(data)
	}
	var all []Message
	if e.name == "client" {
		all, _ = Requests(string(data))
	} else {
		all, _ = Responses(string(data), methods(string(e.run.client.sent)), false)
	}
	n := 0
	for _, m := range all {
		if m.Status() < 100 || m.Status() >= 200 || m.Status() == 101 { // Others may be dropped.
			n += 1 + len(m.Body)
		}
	}
	return n
}

// abort resets the connection.
func (e *endpoint) abort() {
	e.run.update(func() { e.gone = true })
	_ = e.conn.SetLinger(0) // Both fail only if it is closed.
	_ = e.conn.Close()
}

func endOf(err error) End {
	var network net.Error
	if errors.As(err, &network) {
		return WasReset
	}
	return EOF
}
