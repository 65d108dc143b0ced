// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// grace is how long requests under way have to end once a server is told to stop.
const grace = 20 * time.Second

// server answers for one pod.
type server struct {
	pod, node string
	// ending is closed when the server is to finish what it has and end.
	ending <-chan struct{}
}

// Serve listens on all ports, on every address of both families, prints one
// line when it does, and answers until SIGTERM; then it takes no more
// connections, finishes what it was asked over HTTP and gRPC, and returns.
func Serve(pod, node string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s := &server{pod: pod, node: node, ending: ctx.Done()}
	var group errgroup.Group
	for port, serve := range map[int]func(net.Listener) error{
		HTTPPort: s.serveHTTP,
		GRPCPort: s.serveGRPC,
		TCPPort:  s.serveTCP,
	} {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return fmt.Errorf("listen on port %d: %w", port, err)
		}
		group.Go(func() error { return serve(listener) })
	}
	fmt.Println(pod, "is listening")
	return group.Wait()
}

// until serves until that fails or the server is ending, and then shuts down.
func (s *server) until(serve, shutdown func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- serve() }()
	select {
	case err := <-ended:
		return err
	case <-s.ending:
		return shutdown()
	}
}

// answer waits as long as the question says and fills in an answer.
func (s *server) answer(text, peer, protocol string) (Answer, error) {
	q, err := parseQuestion(text)
	if err != nil {
		return Answer{}, err
	}
	if q.delay > 0 {
		<-time.After(q.delay)
	}
	return Answer{Pod: s.pod, Node: s.node, Peer: peer, Protocol: protocol, Padding: strings.Repeat("x", q.size)}, nil
}

// serveHTTP answers HTTP/1 and h2c with prior knowledge.
func (s *server) serveHTTP(listener net.Listener) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Protocols:         &protocols,
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				return
			}
			answer, err := s.answer(r.URL.RawQuery, r.RemoteAddr, r.Proto)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			text, err := json.Marshal(answer)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", fmt.Sprint(len(text)+1))
			// A client that went away is the client's business.
			_, _ = w.Write(append(text, '\n'))
		}),
	}
	return s.until(func() error { return srv.Serve(listener) }, func() error {
		limit, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		return srv.Shutdown(limit)
	})
}

// serveGRPC answers the service of grpc.go.
func (s *server) serveGRPC(listener net.Listener) error {
	srv := grpc.NewServer()
	srv.RegisterService(serviceDesc(), s)
	return s.until(func() error { return srv.Serve(listener) }, func() error {
		srv.GracefulStop()
		return nil
	})
}

// serveTCP answers one line of JSON to every line, and half-closes when the
// client has.
func (s *server) serveTCP(listener net.Listener) error {
	return s.until(func() error { return s.acceptTCP(listener) }, listener.Close)
}

func (s *server) acceptTCP(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go s.serveConn(conn)
	}
}

func (s *server) serveConn(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewReader(conn)
	out := json.NewEncoder(conn)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				fmt.Println("tcp:", err)
			}
			return
		}
		answer, err := s.answer(strings.TrimSpace(line), conn.RemoteAddr().String(), "tcp")
		if err != nil || out.Encode(answer) != nil {
			return
		}
	}
}
