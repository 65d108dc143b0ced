// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// targetCommand is the first argument that makes this program the servers that
// attackers call.
const targetCommand = "target"

// The ports of the attackers' Service. The names begin with the class.
const (
	httpDeaf   uint16 = 80 // accepts connections and never reads
	httpHung   uint16 = 81 // takes requests and never reads their bodies nor answers
	httpFlood  uint16 = 82 // answers without an end
	tcpDeaf    uint16 = 90
	tcpFlood   uint16 = 91
	detectDeaf uint16 = 92
	httpEcho   uint16 = 8080

	httpLongHeader    uint16 = 83 // answers with a header without an end
	httpInformational uint16 = 84 // answers with informational answers without an end
)

// manyPorts is the number of ports of the Service of many ports, from firstPort on.
const (
	firstPort = 10_000
	manyPorts = 7_000
)

// Where the servers listen in their pods.
const (
	deafPort = 9200 + iota
	hungPort
	floodPort
	rawFloodPort
	longHeaderPort
	informationalPort
)

// targetPorts are the ports of the attackers' Service. Those of HTTP are declared, so
// that their class doesn't depend on what the attack sends.
func targetPorts() []corev1.ServicePort {
	ports := []corev1.ServicePort{
		lab.Port("http-deaf", httpDeaf, deafPort),
		lab.Port("http-hung", httpHung, hungPort),
		lab.Port("http-flood", httpFlood, floodPort),
		lab.Port("http-header", httpLongHeader, longHeaderPort),
		lab.Port("http-informational", httpInformational, informationalPort),
		lab.Port("http-echo", httpEcho, echo.HTTPPort),
	}
	for i := range ports {
		ports[i].AppProtocol = new("http")
	}
	return append(ports,
		lab.Port("tcp-deaf", tcpDeaf, deafPort), lab.Port("tcp-flood", tcpFlood, rawFloodPort), lab.Port("web-deaf", detectDeaf, deafPort))
}

// targetMain serves until it is killed.
func targetMain() error {
	var group errgroup.Group
	for port, serve := range map[int]func(net.Listener) error{
		deafPort: deaf, hungPort: hung, floodPort: flood, rawFloodPort: say("", "0"),
		longHeaderPort:    say("HTTP/1.1 200 OK\r\n", "x: "+strings.Repeat("v", 8_000)+"\r\n"),
		informationalPort: say("", "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"),
	} {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		group.Go(func() error { return serve(listener) })
	}
	fmt.Println("listening")
	return group.Wait()
}

// deaf accepts connections and does nothing with them.
func deaf(listener net.Listener) error {
	var held []net.Conn
	for {
		c, err := listener.Accept()
		switch {
		case errors.Is(err, unix.EMFILE):
			// The kernel makes further connections and holds them.
			<-time.After(time.Second)
		case err != nil:
			return fmt.Errorf("accept after %d connections: %w", len(held), err)
		default:
			held = append(held, c)
		}
	}
}

// server speaks HTTP/1 and h2c, with as many streams as are asked for.
func server(handler http.HandlerFunc) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Protocols: &protocols,
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: 1 << 20},
		Handler:   handler,
	}
}

// hung takes requests and never reads on: a server that waits for something.
func hung(listener net.Listener) error {
	return server(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }).Serve(listener)
}

// flood answers without an end.
func flood(listener net.Listener) error {
	return server(func(w http.ResponseWriter, _ *http.Request) {
		// The client ends it.
		_, _ = io.Copy(w, endless{new(atomic.Int64)})
	}).Serve(listener)
}

// say writes to each connection: a start, and then the same without an end.
func say(start, again string) func(net.Listener) error {
	again = strings.Repeat(again, max(1, 32<<10/len(again)))
	return func(listener net.Listener) error {
		for {
			c, err := listener.Accept()
			if err != nil {
				return err
			}
			go func() {
				defer c.Close()
				_, err := io.WriteString(c, start)
				for err == nil {
					_, err = io.WriteString(c, again)
				}
			}()
		}
	}
}
