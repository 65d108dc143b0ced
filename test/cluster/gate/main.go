// SPDX-License-Identifier: Apache-2.0

// Command gate lets the machine reach one port of a network namespace: it
// listens on the machine's loopback and dials inside the namespace. It changes
// nothing of either network.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
)

func main() {
	listen := flag.String("listen", "", "`address` to listen on")
	namespace := flag.String("netns", "", "`file` of the network namespace to dial in")
	to := flag.String("to", "", "`address` to dial")
	flag.Parse()
	if err := run(*listen, *namespace, *to); err != nil {
		fmt.Fprintln(os.Stderr, "gate:", err)
		os.Exit(1)
	}
}

// run serves connections until accepting one fails.
func run(listen, namespace, to string) error {
	target, err := netns.GetFromPath(namespace)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", namespace, err)
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", listen, err)
	}
	fmt.Println("listening on", listener.Addr())
	for {
		client, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept on %s: %w", listen, err)
		}
		go func() {
			if err := serve(client.(*net.TCPConn), target, to); err != nil {
				fmt.Fprintln(os.Stderr, "gate:", err)
			}
		}()
	}
}

// serve copies both ways between a client and a connection of its own.
func serve(client *net.TCPConn, target netns.NsHandle, to string) error {
	defer client.Close()
	server, err := dial(target, to)
	if err != nil {
		return err
	}
	defer server.Close()
	upstream := make(chan error, 1)
	go func() { upstream <- pass(server, client) }()
	return errors.Join(pass(client, server), <-upstream)
}

// pass copies until the end of src, and passes that end on.
func pass(dst, src *net.TCPConn) error {
	if _, err := io.Copy(dst, src); err != nil {
		// The other direction has nobody to talk to any more.
		return errors.Join(fmt.Errorf("copy: %w", err), dst.Close())
	}
	return dst.CloseWrite()
}

// dial makes a connection whose socket belongs to the target namespace.
func dial(target netns.NsHandle, to string) (*net.TCPConn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// Never unlocked: the thread, in the wrong namespace, ends with this.
		runtime.LockOSThread()
		if err := netns.Set(target); err != nil {
			done <- result{err: fmt.Errorf("enter namespace: %w", err)}
			return
		}
		// An address needs no lookup, and one address no second goroutine.
		conn, err := new(net.Dialer).DialContext(context.Background(), "tcp4", to)
		done <- result{conn, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, fmt.Errorf("dial %s: %w", to, r.err)
	}
	return r.conn.(*net.TCPConn), nil
}
