// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// get makes one request on a connection of its own and returns the status and
// the body.
func get(address string) (int, string, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address + "/")
	if err != nil {
		return 0, "", err
	}
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), errors.Join(err, resp.Body.Close())
}

// mustGet fails the test unless the answer is 200 with this body.
func mustGet(t *testing.T, address, want string) {
	t.Helper()
	if code, body, err := get(address); err != nil || code != http.StatusOK || body != want {
		t.Fatalf("GET %s: %d %q, %v; want 200 %q", address, code, body, err, want)
	}
}

// webServer answers every request at this address with its own name.
func webServer(t *testing.T, address, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })}
	go func() { _ = server.Serve(l) }() // Ends with Close, by an error that says so.
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

// wants returns nil if the answer is 200 with this body.
func wants(address, want string) error {
	code, body, err := get(address)
	if err != nil || code != http.StatusOK || body != want {
		return fmt.Errorf("GET %s: %d %q, %w; want 200 %q", address, code, body, err, want)
	}
	return nil
}

// tcpServer answers every connection with its own name, once it was spoken to.
func tcpServer(t *testing.T, address, name string) string {
	t.Helper()
	return serveTCP(t, address, func(c net.Conn) {
		if _, err := c.Read(make([]byte, 1024)); err == nil {
			_, _ = io.WriteString(c, name) // The client sees what is missing.
		}
	})
}

// serveTCP serves each connection to an address by a function, after which it is closed.
func serveTCP(t *testing.T, address string, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // Closed by the cleanup.
			}
			go func() {
				defer func() { _ = c.Close() }()
				serve(c)
			}()
		}
	}()
	return l.Addr().String()
}

// greeting is what a tcpServer at this address answers.
func greeting(address string) (string, error) { return say(address, "hello") }

// say sends text and returns all that comes until the connection is closed.
func say(address, text string) (string, error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	return converse(c, text)
}

// converse sends text, returns all that comes until the connection is closed,
// and closes it.
func converse(c net.Conn, text string) (string, error) {
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	got, err := io.ReadAll(c)
	return string(got), err
}

func mustGreet(t *testing.T, address, want string) {
	t.Helper()
	if got, err := greeting(address); err != nil || got != want {
		t.Fatalf("TCP %s: %q, %v; want %q", address, got, err, want)
	}
}
