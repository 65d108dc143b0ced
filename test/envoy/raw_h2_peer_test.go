// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2Peer is one end of an HTTP/2 connection, frame by frame.
type h2Peer struct {
	*http2.Framer
	conn *net.TCPConn
	// fields decodes the headers that come.
	fields *hpack.Decoder
}

func newH2Peer(c *net.TCPConn) h2Peer {
	return h2Peer{http2.NewFramer(c, c), c, hpack.NewDecoder(4096, nil)}
}

// h2Frames is a server that leaves each request to a function, which gets its stream
// and path. Requests on a connection come one after the other.
func h2Frames(t *testing.T, address string, answer func(p h2Peer, stream uint32, path string) error) string {
	t.Helper()
	return serveTCP(t, address, func(c net.Conn) {
		_ = serveFrames(newH2Peer(c.(*net.TCPConn)), answer) // The client sees how it ends.
	})
}

// serveFrames serves one connection until it ends.
func serveFrames(p h2Peer, answer func(p h2Peer, stream uint32, path string) error) error {
	if _, err := io.ReadFull(p.conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	if err := p.WriteSettings(); err != nil {
		return err
	}
	p.ReadMetaHeaders = p.fields
	p.MaxHeaderListSize = 1 << 20
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = p.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			err = answer(p, f.StreamID, f.PseudoValue("path"))
		}
		if err != nil {
			return err
		}
	}
}

// headers writes a block of fields, in as many frames as it takes.
func (p h2Peer) headers(stream uint32, end bool, fields ...field) error {
	const most = 16 << 10
	rest := block(fields)
	part := rest[:min(len(rest), most)]
	rest = rest[len(part):]
	err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndHeaders: len(rest) == 0, EndStream: end})
	for err == nil && len(rest) > 0 {
		part = rest[:min(len(rest), most)]
		rest = rest[len(part):]
		err = p.WriteContinuation(stream, len(rest) == 0, part)
	}
	return err
}

// ok is a whole answer without a body.
func (p h2Peer) ok(stream uint32) error { return p.headers(stream, true, field{":status", "200"}) }

// dialH2 connects as a client with these settings.
func (m mode) dialH2(t *testing.T, address string, settings ...http2.Setting) h2Peer {
	t.Helper()
	c := m.dial(t, address)
	p := newH2Peer(c)
	_, err := io.WriteString(c, http2.ClientPreface)
	if err := errors.Join(err, c.SetDeadline(time.Now().Add(20*time.Second)), p.WriteSettings(settings...)); err != nil {
		t.Fatal(err)
	}
	p.AllowIllegalWrites = true
	return p
}

// h2Answer is what a client gets on a stream.
type h2Answer struct {
	status string
	body   int
	// end is empty if the stream ends as it should.
	end string
}

// result reads frames until this stream ends, or the connection.
func (p h2Peer) result(stream uint32) h2Answer {
	var a h2Answer
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			a.end = "connection: " + err.Error()
			return a
		}
		if goAway, is := frame.(*http2.GoAwayFrame); is {
			a.end = "goaway: " + goAway.ErrCode.String()
			return a
		}
		ended := false
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			fields, err := p.fields.DecodeFull(f.HeaderBlockFragment())
			if err != nil || len(fields) == 0 {
				return h2Answer{end: fmt.Sprint("headers: ", err)}
			}
			if f.StreamID == stream && fields[0].Name == ":status" {
				a.status = fields[0].Value
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			if f.StreamID == stream {
				a.body += len(f.Data())
			}
			ended = f.StreamEnded()
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				a.end = "reset: " + f.ErrCode.String()
				return a
			}
		}
		if ended && frame.Header().StreamID == stream {
			return a
		}
	}
}
