// SPDX-License-Identifier: Apache-2.0

package space

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// talkTimeout bounds a dial and each answer.
const talkTimeout = 2 * time.Second

// Listen answers each line on each connection with the listener's name and
// where the client meant to go: the original destination as conntrack has it,
// or, of a transparent listener, the connection's own address.
func (n *Node) Listen(name string, at netip.AddrPort, transparent bool) {
	n.t.Helper()
	n.ok(listen(n.closeWith, name, at, transparent))
}

// Listen is Node.Listen in the pod.
func (p *Pod) Listen(n *Node, name string, at netip.AddrPort) {
	n.t.Helper()
	n.ok(p.Do(func() error { return listen(n.closeWith, name, at, false) }))
}

func (n *Node) closeWith(l net.Listener) { n.t.Cleanup(func() { _ = l.Close() }) }

func listen(own func(net.Listener), name string, at netip.AddrPort, transparent bool) error {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		if !transparent {
			return nil
		}
		var failed error
		err := c.Control(func(fd uintptr) {
			level, option := unix.SOL_IP, unix.IP_TRANSPARENT
			if at.Addr().Is6() {
				level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
			}
			failed = unix.SetsockoptInt(int(fd), level, option, 1)
		})
		return errors.Join(err, failed)
	}}
	l, err := config.Listen(context.Background(), "tcp", at.String())
	if err != nil {
		return fmt.Errorf("listen as %s: %w", name, err)
	}
	own(l)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			go answer(c.(*net.TCPConn), name)
		}
	}()
	return nil
}

// Echo answers each datagram in the pod with the listener's name and the pod's
// address.
func (p *Pod) Echo(n *Node, name string, at netip.AddrPort) {
	n.t.Helper()
	n.ok(p.Do(func() error {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return fmt.Errorf("listen as %s: %w", name, err)
		}
		n.t.Cleanup(func() { _ = c.Close() })
		go func() {
			buffer := make([]byte, 1<<10)
			for {
				_, from, err := c.ReadFromUDPAddrPort(buffer)
				if err != nil {
					return // closed
				}
				_, _ = c.WriteToUDPAddrPort([]byte(name+" "+at.String()+"\n"), from)
			}
		}()
		return nil
	}))
}

// goodbye asks the listener to close the connection.
const goodbye = "goodbye"

func answer(c *net.TCPConn, name string) {
	defer func() { _ = c.Close() }()
	to, err := original(c)
	if err != nil {
		to = err.Error()
	}
	lines := bufio.NewScanner(c)
	for lines.Scan() && lines.Text() != goodbye {
		if _, err := fmt.Fprintf(c, "%s %s\n", name, to); err != nil {
			return
		}
	}
}

// ipv6OriginalDst is IP6T_SO_ORIGINAL_DST.
const ipv6OriginalDst = 80

// original is SO_ORIGINAL_DST, or the connection's own address without one.
func original(c *net.TCPConn) (string, error) {
	own := c.LocalAddr().(*net.TCPAddr).AddrPort()
	raw, err := c.SyscallConn()
	if err != nil {
		return "", err
	}
	result := netip.AddrPortFrom(own.Addr().Unmap(), own.Port())
	err = raw.Control(func(fd uintptr) {
		// Of the types that package unix can ask for, these have the room.
		if own.Addr().Unmap().Is4() {
			if b, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); err == nil {
				a := b.Multiaddr
				result = netip.AddrPortFrom(netip.AddrFrom4([4]byte(a[4:8])), binary.BigEndian.Uint16(a[2:4]))
			}
			return
		}
		if b, err := unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, ipv6OriginalDst); err == nil {
			port := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, b.Addr.Port))
			result = netip.AddrPortFrom(netip.AddrFrom16(b.Addr.Addr), port)
		}
	})
	return result.String(), err
}

// Conn is a connection to a listener of this package.
type Conn struct {
	conn  net.Conn
	lines *bufio.Reader
}

// Dial connects from the pod.
func (p *Pod) Dial(to netip.AddrPort) (*Conn, error) { return p.DialFrom(to, 0) }

// DialFrom connects from a port of the pod; 0 for any.
func (p *Pod) DialFrom(to netip.AddrPort, port int) (*Conn, error) {
	return p.DialAs(to, Caller{Port: port})
}

// DialAs connects from the pod as a caller of this kind.
func (p *Pod) DialAs(to netip.AddrPort, as Caller) (*Conn, error) {
	var c *Conn
	err := p.Do(func() (err error) {
		c, err = as.dial(to)
		return err
	})
	return c, err
}

// Dial connects from the node itself, and must be called by the test's goroutine.
func (n *Node) Dial(to netip.AddrPort) (*Conn, error) { return Dial(to) }

// Dial connects from the network namespace of the calling thread.
func Dial(to netip.AddrPort) (*Conn, error) { return Caller{}.dial(to) }

// Caller is how a connection is made; the zero value is an ordinary one.
type Caller struct {
	// Port and Address are the connection's own; zero for any.
	Port    int
	Address netip.Addr
	// Mark is put on its packets.
	Mark int
	// UDP is set for datagrams in place of a connection.
	UDP bool
}

func (as Caller) dial(to netip.AddrPort) (*Conn, error) {
	dialer := net.Dialer{Timeout: talkTimeout, Control: func(_, _ string, c syscall.RawConn) error {
		if as.Mark == 0 {
			return nil
		}
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, as.Mark) })
		return errors.Join(err, failed)
	}}
	network := "tcp"
	switch {
	case as.UDP:
		network = "udp"
	case as.Port != 0 || as.Address.IsValid():
		dialer.LocalAddr = &net.TCPAddr{IP: as.Address.AsSlice(), Port: as.Port}
	}
	c, err := dialer.Dial(network, to.String())
	if err != nil {
		return nil, err
	}
	return &Conn{conn: c, lines: bufio.NewReader(c)}, nil
}

// Tell sends a line.
func (c *Conn) Tell() error {
	_, err := fmt.Fprintln(c.conn, "who are you")
	return err
}

// Ask sends a line and returns the answer.
func (c *Conn) Ask() (string, error) {
	if err := c.conn.SetDeadline(time.Now().Add(talkTimeout)); err != nil {
		return "", err
	}
	if err := c.Tell(); err != nil {
		return "", err
	}
	line, err := c.lines.ReadString('\n')
	return strings.TrimSpace(line), err
}

// Goodbye lets the listener close the connection first.
func (c *Conn) Goodbye() error {
	if _, err := fmt.Fprintln(c.conn, goodbye); err != nil {
		return err
	}
	if _, err := c.lines.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the listener didn't close: %w", err)
	}
	return nil
}

// Reset ends the connection so that the client's port is free at once.
func (c *Conn) Reset() error {
	if err := c.conn.(*net.TCPConn).SetLinger(0); err != nil {
		return err
	}
	return c.conn.Close()
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Reached is what the listener says that a connection reaches: "refused" when
// the connection is refused, else "failed" with the error.
func Reached(dial func(netip.AddrPort) (*Conn, error), to netip.AddrPort) string {
	c, err := dial(to)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "refused"
	}
	if err != nil {
		return "failed: " + err.Error()
	}
	defer func() { _ = c.Close() }()
	line, err := c.Ask()
	if err != nil {
		return "failed: " + err.Error()
	}
	return line
}
