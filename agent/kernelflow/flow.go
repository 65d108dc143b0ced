// SPDX-License-Identifier: Apache-2.0

package kernelflow

import (
	"time"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/redirect/conntrack"
)

// Values of flow.Flow.Protocol.
const protocolTCP, protocolUDP = "TCP", "UDP"

// How connections end, for flow.Flow.Detail.
const (
	detailClosed     = "closed"
	detailReset      = "reset"
	detailRefused    = "refused, or reset before it was established"
	detailUnanswered = "not answered"
	detailForgotten  = "idle for so long that the kernel forgot it"
)

// The kernel forgets what is over after these times (nf_conntrack_tcp_timeout_time_wait
// and _close, by default).
const closedTime, resetTime = 2 * time.Minute, 10 * time.Second

// Open is the flow of a connection that has not ended, without a time and names.
func Open(e *conntrack.Entry) flow.Flow {
	f := flow.Flow{
		Origin: flow.OriginKernel, Open: true, Protocol: protocolTCP, GRPCStatus: -1, Time: e.Start,
		Source: flow.Peer{Address: e.From}, Frontend: e.To, Backend: flow.Peer{Address: e.Answers},
		BytesSent: e.Sent, BytesReceived: e.Received,
	}
	if e.Protocol == conntrack.UDP {
		f.Protocol = protocolUDP
	}
	return f
}

// ended is the flow of a connection that began at a time, and that the kernel has
// forgotten by now. How long it went on is an estimate, up to a minute too long: that is
// how often the kernel looks for what it is to forget.
func ended(e *conntrack.Entry, began, now time.Time) flow.Flow {
	f := Open(e)
	f.Time, f.Open = began, false
	if !e.Stop.IsZero() {
		now = e.Stop
	}
	over := time.Duration(0)
	f.Detail, over = howEnded(e)
	if over > 0 {
		f.Duration = flow.Millis(max(0, now.Sub(began)-over))
	}
	if f.Detail == detailRefused || f.Detail == detailUnanswered && e.Protocol == conntrack.TCP {
		f.Flags = []flow.Flag{"UF"}
	}
	return f
}

// howEnded is how a connection ended, and for how long it had been over; 0 if that is not
// known.
func howEnded(e *conntrack.Entry) (detail string, over time.Duration) {
	switch {
	case !e.Replied:
		return detailUnanswered, 0
	case e.Protocol == conntrack.UDP:
		return "", 0
	case e.State == conntrack.StateTimeWait:
		return detailClosed, closedTime
	case e.State == conntrack.StateClose && !e.Assured:
		return detailRefused, resetTime
	case e.State == conntrack.StateClose:
		return detailReset, resetTime
	case e.State == conntrack.StateSynSent, e.State == conntrack.StateSynReceived:
		return detailUnanswered, 0
	}
	return detailForgotten, 0
}
