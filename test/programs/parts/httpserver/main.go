// SPDX-License-Identifier: Apache-2.0

// Command httpserver is a web server by net/http: HTTP/1 and, without TLS, HTTP/2.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s\n", r.Method, r.URL)
	})
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		// The client sees whether all came back.
		_, _ = io.Copy(w, r.Body)
	})
	http.HandleFunc("/stream", stream)
	http.HandleFunc("/trailers", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintln(w, "with trailers")
		w.Header().Set("X-Sum", "7")
	})
	http.HandleFunc("/attach", attach)
	server := &http.Server{Addr: os.Args[1], Protocols: &protocols, ReadHeaderTimeout: time.Minute}
	log.Fatal(server.ListenAndServe())
}

// stream sends three events, each by itself.
func stream(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range 3 {
		fmt.Fprintf(w, "data: %d\n\n", i)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
	}
}

// attach changes to a protocol of plain bytes, as `docker attach` has it, and sends
// back what it is sent until the client ends its direction.
func attach(w http.ResponseWriter, _ *http.Request) {
	conn, both, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	fmt.Fprint(both, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	if both.Flush() == nil {
		_, _ = io.Copy(conn, both)
	}
}
