// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Origin is who saw a flow.
type Origin string

// The origins.
const (
	// OriginEnvoy is for what went through Envoy, which reports it at its end.
	OriginEnvoy Origin = "envoy"
	// OriginKernel is for connections that were not redirected, as the kernel tracks them.
	OriginKernel Origin = "kernel"
)

// Flow is one request of HTTP, or else one connection, of a pod of this node. What is not
// known is the zero value, and is left out of JSON.
type Flow struct {
	// ID tells flows of one agent apart, in the order in which it heard of them.
	ID uint64 `json:"id"`
	// Time is when the request, or the connection, began.
	Time   time.Time `json:"time"`
	Origin Origin    `json:"origin"`
	// Open is set for a connection that has not ended.
	Open bool `json:"open,omitempty"`

	Source Peer `json:"source"`
	// Frontend is the address that the client connected to, and Service the Service port
	// that it belongs to; a pod's own address belongs to none.
	Frontend netip.AddrPort `json:"frontend"`
	Service  Service        `json:"service"`
	// Class is the capture class of the frontend, and ClassReason what decided it.
	Class       string `json:"class,omitempty"`
	ClassReason string `json:"classReason,omitempty"`
	// Backend is what answered; of a request that was tried several times, the last.
	Backend Peer `json:"backend"`

	// Protocol is HTTP/1.0, HTTP/1.1, HTTP/2, gRPC, TLS, TCP or UDP.
	Protocol string `json:"protocol"`
	Method   string `json:"method,omitempty"`
	// Path is without its query, which is in Query if the agent is set to keep it.
	Path  string `json:"path,omitempty"`
	Query string `json:"query,omitempty"`
	Host  string `json:"host,omitempty"`
	// Status is HTTP's, and GRPCStatus the one of gRPC, as a number; -1 if there is none.
	Status     int `json:"status,omitempty"`
	GRPCStatus int `json:"grpcStatus"`
	// Flags are what happened beside the ordinary, in Envoy's short words.
	Flags []Flag `json:"flags,omitempty"`
	// Detail is Envoy's, or the kernel's, word for how it ended.
	Detail string `json:"detail,omitempty"`

	// BytesSent and BytesReceived are the client's: of requests and of responses.
	BytesSent     uint64 `json:"bytesSent"`
	BytesReceived uint64 `json:"bytesReceived"`
	// Duration is from the first byte to the last, Connect how long the connection to the
	// backend took, if it was made for this flow, and FirstByte is from the first byte of
	// the client to that of the backend.
	Duration  Millis `json:"durationMs"`
	Connect   Millis `json:"connectMs,omitempty"`
	FirstByte Millis `json:"firstByteMs,omitempty"`
	// Attempts is how many times a backend was tried.
	Attempts int `json:"attempts,omitempty"`
	// Connections is how many alike the flow stands for, if there are more than one: of
	// one source, frontend and backend within a few seconds.
	Connections int `json:"connections,omitempty"`

	RequestID string `json:"requestId,omitempty"`
	TraceID   string `json:"traceId,omitempty"`
}

// Peer is one end of a flow.
type Peer struct {
	Address   netip.AddrPort `json:"address"`
	Namespace string         `json:"namespace,omitempty"`
	Pod       string         `json:"pod,omitempty"`
	// Workload is the name of what runs the pod, such as its Deployment: as the pod says,
	// or for one of another node as its name suggests.
	Workload string `json:"workload,omitempty"`
	Node     string `json:"node,omitempty"`
	Zone     string `json:"zone,omitempty"`
}

// Name is namespace/pod, or else the address.
func (p Peer) Name() string {
	switch {
	case p.Pod != "":
		return p.Namespace + "/" + p.Pod
	case p.Address.Port() == 0 && p.Address.IsValid():
		return p.Address.Addr().String()
	case p.Address.IsValid():
		return p.Address.String()
	}
	return ""
}

// Service is a port of a Service; Port is its name if it has one, else its number.
type Service struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Port      string `json:"port,omitempty"`
}

// ServiceOf is a Service port as flows have it.
func ServiceOf(p model.ServicePort) Service {
	return Service{Namespace: p.Namespace, Name: p.Service, Port: p.Label()}
}

// String is namespace/name/port; empty for no Service.
func (s Service) String() string {
	if s == (Service{}) {
		return ""
	}
	return s.Namespace + "/" + s.Name + "/" + s.Port
}

// Millis is a duration that JSON has in milliseconds, with microseconds as decimals.
type Millis time.Duration

// MarshalJSON writes the number.
func (m Millis) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Duration(m).Microseconds())/1000, 'f', -1, 64), nil
}

// UnmarshalJSON reads it back.
func (m *Millis) UnmarshalJSON(text []byte) error {
	ms, err := strconv.ParseFloat(string(text), 64)
	*m = Millis(ms * float64(time.Millisecond))
	return err
}

// String is the duration as Go writes it.
func (m Millis) String() string { return time.Duration(m).String() }

// Failed says whether the client did not get an answer that its server meant as a success:
// a status of 500 or above, a status of gRPC that servers and proxies answer with when
// something is wrong, or a flag of Envoy that stands for a failure.
func (f *Flow) Failed() bool {
	if f.Status >= 500 || slices.Contains(FailedGRPC(), f.GRPCStatus) {
		return true
	}
	for _, flag := range f.Flags {
		if flag.Failure() {
			return true
		}
	}
	return false
}

// FailedGRPC are the statuses of gRPC that are not the client's own doing, as NOT_FOUND
// is: UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL,
// UNAVAILABLE, DATA_LOSS (google.golang.org/grpc/codes).
func FailedGRPC() []int { return []int{2, 4, 8, 12, 13, 14, 15} }
