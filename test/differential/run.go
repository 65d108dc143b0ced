// SPDX-License-Identifier: Apache-2.0

package differential

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// Path is a way from a client to a server.
type Path struct {
	Dial     func(context.Context) (*net.TCPConn, error)
	Listener *net.TCPListener
	// Patience is how long a step may wait and, once the scripts are over, all for what
	// is expected.
	Patience time.Duration
}

// quiet is how long a transcript that is as expected must stay so.
const quiet = 10 * time.Millisecond

// Run plays a case on a path. It ends once both scripts are over and settled says of
// the transcript that no more is to come, or when patience is at its end.
func Run(ctx context.Context, c Case, path Path, settled func(Transcript) bool) (Transcript, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*path.Patience)
	defer cancel()
	r := &run{c: c, path: path, board: &board{changed: make(chan struct{})}, here: map[string]int{}}
	if err := dismiss(path.Listener); err != nil {
		return Transcript{}, err
	}
	conn, err := path.Dial(ctx)
	if err != nil {
		return Transcript{}, fmt.Errorf("dial: %w", err)
	}
	r.client = r.endpoint(conn, "client")
	r.tasks.Go(func() { r.serve(ctx) })
	r.client.play(ctx, c.Client)
	r.settle(ctx, settled)
	out := r.transcript()
	return out, r.end()
}

// dismiss closes connections that nobody has accepted, and lets the listener wait for more.
func dismiss(l *net.TCPListener) error {
	for {
		if err := l.SetDeadline(time.Now().Add(100 * time.Microsecond)); err != nil {
			return err
		}
		c, err := l.AcceptTCP()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return l.SetDeadline(time.Time{})
		}
		if err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
}

// run is one play of a case.
type run struct {
	*board
	c      Case
	path   Path
	client *endpoint
	// servers are the connections accepted, and replies is how many replies have begun,
	// playing how many go on.
	servers          []*endpoint
	replies, playing int
	// here counts how often each side has been at a meeting.
	here    map[string]int
	stalled []string
	tasks   sync.WaitGroup
}

// board is a lock whose holders can wait for what others change.
type board struct {
	mu      sync.Mutex
	changed chan struct{}
}

func (b *board) update(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
	close(b.changed)
	b.changed = make(chan struct{})
}

// await waits until the condition holds, and says whether it does.
func (b *board) await(ctx context.Context, patience time.Duration, condition func() bool) bool {
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		b.mu.Lock()
		ok, changed := condition(), b.changed
		b.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-limit.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

// settle waits until nothing more is to come.
func (r *run) settle(ctx context.Context, settled func(Transcript) bool) {
	over := func() bool {
		return r.playing == 0 && settled(r.record())
	}
	for r.await(ctx, r.path.Patience, over) {
		if !r.await(ctx, quiet, func() bool { return !over() }) {
			return
		}
	}
}

// record is the transcript as it is now; the lock is held.
func (r *run) record() Transcript {
	t := Transcript{Client: r.client.record(), Stalled: slices.Clone(r.stalled)}
	for _, s := range r.servers {
		t.Server = append(t.Server, s.record())
	}
	return t
}

func (r *run) transcript() Transcript {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.record()
}

// end closes what is left. A server's connection is closed so that a proxy that keeps
// it for another request sees that: it closes its side, too.
func (r *run) end() error {
	r.client.abort()
	// A proxy may still open a connection that it began to.
	r.await(context.Background(), 2*quiet, func() bool { return false })
	if err := r.path.Listener.SetDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	r.mu.Lock()
	servers := slices.Clone(r.servers)
	r.mu.Unlock()
	for _, s := range servers {
		_ = s.conn.CloseWrite() // It may be closed.
		r.await(context.Background(), 100*time.Millisecond, func() bool { return s.gone || s.end != Open })
		s.abort()
	}
	r.tasks.Wait()
	return nil
}

// serve accepts connections and plays the replies on them.
func (r *run) serve(ctx context.Context) {
	for {
		conn, err := r.path.Listener.AcceptTCP()
		if err != nil {
			return // The deadline is how end says that it is over.
		}
		s := r.endpoint(conn, "server")
		r.update(func() { r.servers = append(r.servers, s) })
		r.tasks.Go(func() { s.answer(ctx) })
	}
}

// Direct plays a case on a path without a proxy. It fails if a step waits in vain, or
// what comes is no HTTP: then the case makes no sense.
func Direct(ctx context.Context, c Case, path Path) (Transcript, error) {
	t, err := Run(ctx, c, path, Transcript.arrived)
	if err == nil && len(t.Stalled) > 0 {
		err = fmt.Errorf("directly, it waits in vain: %v", t.Stalled)
	}
	if err == nil && c.isHTTP() {
		err = exchange(t).wellFormed()
	}
	return t, err
}
