// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// field is a header field or a trailer as it is on the wire, with its faults.
type field struct{ name, value string }

// rawH2 is one HTTP/2 request: fields that no library would send, and trailers.
type rawH2 struct{ headers, trailers []field }

// send makes the request on a connection of its own. It returns the status of the
// answer, or how the stream or the connection ended without one.
func (r rawH2) send(t *testing.T, conn *net.TCPConn) string {
	t.Helper()
	defer func() { _ = conn.Close() }()
	p := newH2Peer(conn)
	_, err := io.WriteString(conn, http2.ClientPreface)
	err = errors.Join(err, conn.SetDeadline(time.Now().Add(5*time.Second)), p.WriteSettings(), p.headers(1, r.trailers == nil, r.headers...))
	if r.trailers != nil {
		err = errors.Join(err, p.WriteData(1, false, []byte("abc")), p.headers(1, true, r.trailers...))
	}
	if err != nil {
		t.Fatal(err)
	}
	got := p.result(1)
	return cmp.Or(got.status, got.end)
}

// block is a header block without any compression, which checks nothing.
func block(fields []field) []byte {
	var out bytes.Buffer
	encoder := hpack.NewEncoder(&out)
	for _, f := range fields {
		_ = encoder.WriteField(hpack.HeaderField{Name: f.name, Value: f.value, Sensitive: true}) // To memory.
	}
	return out.Bytes()
}

// get2 are the headers of a request with further ones.
func get2(path string, more ...field) []field {
	return append([]field{{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "web"}}, more...)
}
