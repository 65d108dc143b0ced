// SPDX-License-Identifier: Apache-2.0

// Package echo is both ends of the lab's traffic. The server is what
// runs in a backend pod: HTTP/1, h2c, gRPC and raw TCP, each answering which
// pod it is and from which address it was called. The client makes calls of
// one kind to one address and reports every one that failed: it never retries,
// so a lost request can't hide.
package echo

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"time"
)

// Command is the first argument that makes a program of the lab act as
// an echo server or client; see Main.
const Command = "lab-echo"

// The ports a server listens on, in every pod.
const (
	HTTPPort = 8080
	GRPCPort = 9090
	TCPPort  = 7000
)

// Answer is what a server says about itself and the call.
type Answer struct {
	// Pod is namespace/name of the pod that answered; Node is where it runs.
	Pod  string `json:"pod"`
	Node string `json:"node"`
	// Peer is the address the server was called from, with its port.
	Peer string `json:"peer"`
	// Protocol is as the server saw it: HTTP/1.0, HTTP/1.1, HTTP/2.0, grpc or tcp.
	Protocol string `json:"protocol"`
	// Padding makes the answer as large as the question asked for.
	Padding string `json:"padding,omitempty"`
}

// question is what a client asks of a server beside its name; it travels as a
// URL query, whatever the protocol.
type question struct {
	// size is the number of padding bytes wanted in the answer.
	size int
	// delay is how long the server waits before it answers.
	delay time.Duration
}

// String is the question as the wire has it.
func (q question) String() string {
	v := url.Values{}
	if q.size > 0 {
		v.Set("size", strconv.Itoa(q.size))
	}
	if q.delay > 0 {
		v.Set("delay", q.delay.String())
	}
	return v.Encode()
}

// path is the path of an HTTP request that asks the question.
func (q question) path() string {
	if q == (question{}) {
		return "/"
	}
	return "/?" + q.String()
}

// parseQuestion reads what String wrote.
func parseQuestion(text string) (question, error) {
	v, err := url.ParseQuery(text)
	if err != nil {
		return question{}, fmt.Errorf("parse question %q: %w", text, err)
	}
	var q question
	if s := v.Get("size"); s != "" {
		if q.size, err = strconv.Atoi(s); err != nil {
			return q, fmt.Errorf("parse size: %w", err)
		}
	}
	if s := v.Get("delay"); s != "" {
		if q.delay, err = time.ParseDuration(s); err != nil {
			return q, fmt.Errorf("parse delay: %w", err)
		}
	}
	return q, nil
}

// Main runs a server or a client, as the arguments after Command say, and
// returns the process's exit code:
//
//	serve NAMESPACE/POD NODE
//	call SPEC-AS-JSON        prints a Result as JSON
func Main(args []string) int {
	var err error
	switch {
	case len(args) == 3 && args[0] == "serve":
		err = Serve(args[1], args[2])
	case len(args) == 2 && args[0] == "call":
		var spec Spec
		if err = json.Unmarshal([]byte(args[1]), &spec); err == nil {
			err = runAndPrint(spec)
		}
	default:
		err = fmt.Errorf("want serve POD NODE or call SPEC, not %q", args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		return 1
	}
	return 0
}
