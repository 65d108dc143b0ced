// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Kind is what happened to a connection.
type Kind uint8

// The kinds.
const (
	// Began is for a connection whose first packet has passed the packet filter.
	Began Kind = iota
	// Ended is for one that the kernel has forgotten: long after its last packet.
	Ended
)

// Event is what happened to a connection.
type Event struct {
	Kind Kind
	Entry
}

// Groups and messages of linux/netfilter/nfnetlink_compat.h and nfnetlink_conntrack.h.
const (
	groupNew, groupDestroy    = 1, 3
	messageNew, messageDelete = 0, 2
	netlinkHeader             = 16
)

const (
	// Buffer holds some 6,000 events until they are read.
	Buffer = 4 << 20
	// messageSize is more than any message has: labels and security contexts included.
	messageSize = 8 << 10
	// readAtOnce bounds how long Read goes on.
	readAtOnce = 20_000
)

// Listener receives events of the network namespace that it was opened in. Its methods
// other than Close are for one goroutine.
type Listener struct {
	file *os.File
	// fd is the file's, for calls that don't wait.
	fd     int
	buffer []byte
	event  Event // the last one, kept to allocate nothing
	lost   uint32
}

// Listen opens a Listener in the network namespace that the thread is in, with a buffer
// of this size. It hears nothing before SetFilter.
func Listen(buffer int) (*Listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	l := &Listener{file: os.NewFile(uintptr(fd), "conntrack"), fd: fd, buffer: make([]byte, messageSize)}
	if err := l.join(buffer); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// join makes the socket a member of the groups.
func (l *Listener) join(buffer int) error {
	if err := l.SetFilter(Filter{}); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, buffer); err != nil {
		// Not allowed in a container's user namespace; less will do.
		if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, buffer); err != nil {
			return fmt.Errorf("set the size of the netlink socket's buffer: %w", err)
		}
	}
	if err := unix.Bind(l.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind netlink socket: %w", err)
	}
	for _, group := range []int{groupNew, groupDestroy} {
		if err := unix.SetsockoptInt(l.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return fmt.Errorf("listen to conntrack's events: %w", err)
		}
	}
	return nil
}

// SetFilter says what the kernel hands over from now on.
func (l *Listener) SetFilter(f Filter) error {
	err := l.attach(f, true)
	if errors.Is(err, unix.ENOMEM) { // Too large for net.core.optmem_max.
		err = l.attach(f, false)
	}
	return err
}

func (l *Listener) attach(f Filter, withSources bool) error {
	program, err := f.program(withSources)
	if err != nil {
		return fmt.Errorf("make a filter of conntrack's events: %w", err)
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = sockFilter(in)
	}
	if err := unix.SetsockoptSockFprog(l.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}); err != nil {
		return fmt.Errorf("attach a filter of conntrack's events: %w", err)
	}
	return nil
}

func sockFilter(in bpf.RawInstruction) unix.SockFilter {
	return unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
}

// Read waits for an event, until a time, and calls found for that and for all others
// that are there, with what is valid during the call. lost is how many the kernel has dropped since the last call because
// nobody took them in time. os.ErrDeadlineExceeded when there was none.
func (l *Listener) Read(until time.Time, found func(*Event)) (lost uint64, err error) {
	if err := l.file.SetReadDeadline(until); err != nil {
		return 0, err
	}
	conn, err := l.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var bad error
	overrun := false
	err = conn.Read(func(uintptr) (done bool) {
		for range readAtOnce {
			n, err := unix.Read(l.fd, l.buffer)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return done
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.ENOBUFS):
				overrun, done = true, true
				continue
			case err != nil:
				bad = err
				return true
			}
			done = true
			bad = errors.Join(bad, l.parse(l.buffer[:n], found))
		}
		return true
	})
	if overrun {
		dropped, err := l.dropped()
		bad = errors.Join(bad, err)
		lost, l.lost = uint64(dropped-l.lost), dropped
	}
	return lost, errors.Join(err, bad)
}

// parse reads what one read of the socket gave.
func (l *Listener) parse(b []byte, found func(*Event)) error {
	for len(b) >= netlinkHeader {
		size := int(native32(b))
		if size < netlinkHeader || size > len(b) {
			return errShort
		}
		if err := l.event.parse(b[:size]); err != nil {
			return err
		}
		if l.event.Protocol != 0 {
			found(&l.event)
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil
}

// parse reads one message; what is of no interest gives the zero Event.
func (e *Event) parse(b []byte) (err error) {
	*e = Event{}
	switch native16(b[4:]) {
	case unix.NFNL_SUBSYS_CTNETLINK<<8 | messageNew:
	case unix.NFNL_SUBSYS_CTNETLINK<<8 | messageDelete:
		e.Kind = Ended
	default:
		return nil
	}
	e.Entry, err = Parse(b[netlinkHeader:])
	return err
}

// dropped is how many messages the socket had no room for, of all time.
func (l *Listener) dropped() (uint32, error) {
	var info [9]uint32 // SK_MEMINFO_VARS
	const drops = 8    // SK_MEMINFO_DROPS
	size := uint32(unsafe.Sizeof(info))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(l.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return 0, fmt.Errorf("count lost events of conntrack: %w", errno)
	}
	return info[drops], nil
}

// Close ends it, also a Read that waits.
func (l *Listener) Close() error { return l.file.Close() }

// CloseAfter closes it once ctx ends; stop keeps it from that.
func (l *Listener) CloseAfter(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { _ = l.Close() }) // It is only read from.
}
