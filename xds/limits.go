// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Limits that keep one client or server from filling Envoy's memory, which all pods
// of the node share. What an ordinary server accepts is below them. Those that an
// application may reach are settings: see Config.
const (
	// maxHeaders is the number of header fields of a message. Node.js, whose limit
	// is the highest of common servers, accepts 2,000; a field takes 130 bytes of
	// memory or more.
	maxHeaders = 2000
	// maxResponseHeadersKiB is the size of a response's headers; the unit is that of
	// Envoy's option. Clients accept less: curl 300 KiB, Go 10 MiB.
	maxResponseHeadersKiB = 1024
	// localWindow is how much of a request's body on an HTTP/2 stream, and
	// localConnectionWindow of all on a connection, a client may send that no server
	// has taken. The client is on the node, where a small window costs nothing.
	localWindow, localConnectionWindow = 256 << 10, 1 << 20
	// remoteWindow and remoteConnectionWindow are the same for responses, whose
	// server may be far away: a window is sent once in each round trip.
	remoteWindow, remoteConnectionWindow = 10 << 20, 64 << 20
	// bufferSize is how much Envoy holds for each direction of a connection before it
	// stops reading. It is full before 10,000 frames of HTTP/2 are in it, even of one
	// byte each: Envoy would end the connection for them.
	bufferSize = 32 << 10
	// maxEmptyFrames is how many frames of data may be empty one after the other. Some
	// clients send one for each flush.
	maxEmptyFrames = 100
	// maxHints is how many priorities a client may send for each request, and half of
	// the window updates for each frame of data. They leave nothing behind, but take time.
	maxHints = 10_000
	// localSocketBuffer is how large the kernel's buffer for each direction of a
	// connection with a pod is, in bytes: it takes twice that, and by itself up to
	// 6 MiB or more (net.ipv4.tcp_rmem), which counts against the container's limit.
	// The pod is on the node, so no round trip has to be filled.
	localSocketBuffer = 128 << 10
)

// http2Options are those of both sides; the windows, and the size of headers in KiB, are
// for what is received there.
func http2Options(streams, window, connectionWindow, headersKiB uint32) *corev3.Http2ProtocolOptions {
	o := &corev3.Http2ProtocolOptions{
		AllowConnect:                            true,
		MaxConcurrentStreams:                    wrapperspb.UInt32(streams),
		InitialStreamWindowSize:                 wrapperspb.UInt32(window),
		InitialConnectionWindowSize:             wrapperspb.UInt32(connectionWindow),
		OverrideStreamErrorOnInvalidHttpMessage: wrapperspb.Bool(true),

		// Empty frames of data pass through all of Envoy, and no window limits them.
		MaxConsecutiveInboundFramesWithEmptyPayload:  wrapperspb.UInt32(maxEmptyFrames),
		MaxInboundPriorityFramesPerStream:            wrapperspb.UInt32(maxHints),
		MaxInboundWindowUpdateFramesPerDataFrameSent: wrapperspb.UInt32(maxHints),
	}
	// One field may be as large as all together, as far as Envoy allows.
	const least, most = 64, 256
	if headersKiB > least {
		o.MaxHeaderFieldSizeKb = wrapperspb.UInt32(min(headersKiB, most))
	}
	return o
}

// Limit is a bound of what clients and servers can make Envoy hold.
type Limit struct {
	// What is limited, to how much, and what happens above that.
	What, Most, Above string
}

// Limits are those of Envoy's listeners and clusters, for people to read.
func Limits(cfg Config) []Limit {
	return []Limit{
		{"size of a request's headers", size(int64(cfg.MaxHeadersKiB) << 10), "Envoy answers 431"},
		{"header fields of a message", strconv.Itoa(maxHeaders), "Envoy answers 431, or 503 for a response"},
		{"size of a response's headers", size(maxResponseHeadersKiB << 10), "Envoy answers 503"},
		{"requests at a time on one HTTP/2 connection", strconv.Itoa(int(cfg.MaxStreams)), "further ones wait in the client"},
		{
			"body of requests that the server hasn't taken, on an HTTP/2 stream and connection",
			size(localWindow) + ", " + size(localConnectionWindow), "the client waits",
		},
		{
			"body of responses that the client hasn't taken, on an HTTP/2 stream and connection",
			size(remoteWindow) + ", " + size(remoteConnectionWindow), "the server waits",
		},
		{"other data in each direction of a connection", size(bufferSize), "the sender waits"},
		// The kernel doubles what it is asked for (socket(7), SO_RCVBUF).
		{"data in the kernel in each direction of a connection with a pod", size(2 * localSocketBuffer), "the sender waits"},
		{
			"time in which a client or server takes nothing of " + size(bufferSize) + " or more that wait for it",
			fmt.Sprintf("%g minutes", cfg.StallTimeout.Minutes()), "the connection is closed",
		},
	}
}

// size is a number of bytes in the largest unit that it is whole in.
func size(n int64) string {
	if n%(1<<20) == 0 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
