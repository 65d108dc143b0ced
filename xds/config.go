// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/model/enum"
)

// AccessLog is the form in which Envoy writes its access log.
type AccessLog string

// The forms of the access log.
const (
	AccessLogText AccessLog = "text"
	AccessLogJSON AccessLog = "json"
	AccessLogOff  AccessLog = "off"
)

// MarshalText writes the form as flags do.
func (a AccessLog) MarshalText() ([]byte, error) { return []byte(a), nil }

// UnmarshalText reads the form of the access log.
func (a *AccessLog) UnmarshalText(text []byte) error {
	return enum.Read(a, text, "access log", AccessLogText, AccessLogJSON, AccessLogOff)
}

// Config is the part of the Envoy configuration that doesn't come from Kubernetes.
// Default sets all but NodeID and the listeners' addresses and ports, which are
// those of the redirection.
type Config struct {
	// NodeID is the id Envoy gives itself: the node's name.
	NodeID string
	// Socket is the path of the unix socket of the ADS server, AdminSocket that of
	// Envoy's admin interface, and HealthSocket that on which Envoy's worker
	// threads answer health checks.
	Socket, AdminSocket, HealthSocket string
	// Group is the group that the sockets are for, besides their owner (0660): the
	// agent and Envoy may be different users. 0 is for their owner only (0600).
	Group int
	// Address4 and Address6 are where the listeners listen; the zero address is
	// for a family without listeners.
	Address4, Address6 netip.Addr
	// Ports are the listeners' ports, on each address.
	Ports model.Ports
	// Transparent is set if connections come by TPROXY, with their destination as
	// the socket's own address. Else they come by DNAT, and it is in conntrack.
	Transparent bool
	// PodMode is set if Envoy listens in the network namespaces of the published
	// pod targets, at the loopback addresses, and connects to backends from there.
	PodMode bool
	// UpstreamMark is the mark of Envoy's own connections to backends in pod mode,
	// which the pod's rules don't redirect.
	UpstreamMark uint32
	// MaxConnectionsPerPod is, in pod mode, how many connections Envoy accepts at
	// a time from one pod: for each capture class by itself and, where the protocol
	// is detected, for HTTP, TLS and the rest. Further ones are closed. 0 is
	// for no limit.
	MaxConnectionsPerPod uint32
	// MaxRequestRate is how many HTTP requests of one address Envoy serves in a second.
	// It answers further ones with 429. 0 is for no limit.
	MaxRequestRate uint32
	// MaxConnections is how many connections Envoy accepts at a time, of all pods.
	MaxConnections uint64
	// MaxHeadersKiB is the maximum size of a request's headers in KiB, which Envoy
	// answers with 431 above it, and MaxStreams the maximum number of requests at a
	// time on an HTTP/2 connection, which clients wait at.
	MaxHeadersKiB, MaxStreams uint32
	// MaxHeap is the maximum of Envoy's heap in bytes; 0 for none. Close to it,
	// Envoy ends the requests that hold most, and then accepts no connections.
	MaxHeap uint64
	// ClusterMemory bounds, in bytes, what Services in use take of that by the
	// estimate of function ClusterMemory; 0 for no bound. Envoy is given no more.
	ClusterMemory int64
	// AccessLog is the form of the access log on Envoy's standard output.
	AccessLog AccessLog
	// AccessLogFormat is that of a line of text; empty for the columns.
	AccessLogFormat LogFormat
	// AccessLogFilter selects what is logged.
	AccessLogFilter model.LogFilter
	// AccessLogFile is the file that Envoy writes the access log to; empty for standard
	// output. Envoy refuses its listeners if it can't open it.
	AccessLogFile string
	// OTLPEndpoint is the host:port of a collector of OpenTelemetry that speaks OTLP by
	// gRPC in clear text; empty for none. AccessLogOTLP has Envoy send the access log
	// there too, and Tracing is the share of requests that it traces.
	OTLPEndpoint  string
	AccessLogOTLP bool
	Tracing       model.Share
	// TelemetryAnnotations is set if namespaces may choose, in pod mode, what of their
	// pods' calls is logged and traced.
	TelemetryAnnotations bool
	// Flows is set if Envoy sends flows to the agent when it is told to.
	Flows bool
	// RequestMetrics counts requests by Service port, code, calling namespace and zone, and
	// how long they take.
	RequestMetrics bool
	// DiscoveryTimeout is how long a connection waits for a cluster that Envoy
	// doesn't have. Envoy requests a name once, so that each later connection to
	// an unknown one waits as long.
	DiscoveryTimeout time.Duration
	// DetectTimeout is how long the detect listener waits for the client's first
	// bytes; without any, the connection is not HTTP.
	DetectTimeout time.Duration
	// ConnectTimeout is the maximum of one attempt to connect to a backend.
	ConnectTimeout time.Duration
	// UpstreamIdle is how long an unused HTTP connection to a backend is kept, also
	// after its client has gone. It is below what servers commonly allow, so that
	// Envoy closes it first: a server might close it when a request is on its way.
	// The shorter it is, the sooner servers with few workers have them back; the
	// longer, the less often a client with few requests waits for a new connection.
	UpstreamIdle time.Duration
	// StallTimeout is how long Envoy waits for a peer to take something of what it
	// holds for it. Envoy doesn't notice that the other side of such a connection was
	// reset, and so keeps those of dead clients that long.
	StallTimeout time.Duration
}

// Default is the configuration of a host-mode node without its node id,
// addresses and ports.
func Default() Config {
	return Config{
		Socket:           "/run/nodevoy/xds.sock",
		AdminSocket:      "/run/nodevoy/envoy-admin.sock",
		HealthSocket:     "/run/nodevoy/envoy-health.sock",
		AccessLog:        AccessLogText,
		AccessLogFilter:  model.LogAll(),
		Flows:            true,
		RequestMetrics:   true,
		UpstreamMark:     0x10,
		MaxConnections:   500_000,
		MaxHeadersKiB:    128,
		MaxStreams:       250,
		ClusterMemory:    256 << 20,
		DiscoveryTimeout: 2 * time.Second,
		DetectTimeout:    500 * time.Millisecond,
		ConnectTimeout:   5 * time.Second,
		UpstreamIdle:     300 * time.Millisecond,
		// As long as a kernel tries to reach a peer (net.ipv4.tcp_retries2).
		StallTimeout: 15 * time.Minute,
	}
}

// maxSocketPath is the longest path of a unix socket in Linux, minus the temporary
// name under which the server makes it.
const maxSocketPath = 107 - len("/.sock-4294967295/s")

// maxRequestRate is the largest MaxRequestRate; no worker of Envoy serves as many.
const maxRequestRate = 1_000_000

// minHeap is the smallest MaxHeap, in bytes, with which Envoy accepts connections.
// The chart's values have the same bound.
const minHeap = 64 << 20

// minClusterMemory is the smallest ClusterMemory, in bytes: room for some ninety
// Services.
const minClusterMemory = 8 << 20

// problems collects what is wrong with a configuration.
type problems []error

func (p *problems) addIf(wrong bool, format string, args ...any) {
	if wrong {
		*p = append(*p, fmt.Errorf(format, args...))
	}
}

// Validate returns everything that is wrong with the configuration, joined.
func (c Config) Validate() error {
	var p problems
	p.addIf(c.NodeID == "", "node id: empty")
	for name, path := range map[string]string{
		"xds socket": c.Socket, "admin socket": c.AdminSocket, "health socket": c.HealthSocket,
	} {
		p.addIf(path == "" || path[0] != '/' || len(path) > maxSocketPath,
			"%s %q: want an absolute path of at most %d bytes", name, path, maxSocketPath)
	}
	p.addIf(c.Group < 0 || c.Group >= 1<<31-1, "group of sockets %d: want the number of a group, or 0 for none", c.Group)
	c.validateListeners(&p)
	p.addIf(c.MaxConnections == 0, "maximum connections: 0, want at least 1")
	p.addIf(c.MaxRequestRate > maxRequestRate, "maximum of requests of a pod in a second %d: want 0 for none, or up to %d", c.MaxRequestRate, maxRequestRate)
	p.addIf(c.MaxHeap != 0 && c.MaxHeap < minHeap,
		"heap bound of Envoy %d: want 0 for none, or at least 64Mi (%d)", c.MaxHeap, minHeap)
	// The bounds of Envoy's own options.
	p.addIf(c.MaxHeadersKiB < 1 || c.MaxHeadersKiB > 8192, "maximum size of headers %d KiB: want 1 to 8192", c.MaxHeadersKiB)
	p.addIf(c.MaxStreams < 1 || c.MaxStreams > math.MaxInt32, "maximum streams per connection %d: want 1 to %d", c.MaxStreams, math.MaxInt32)
	p.addIf(c.ClusterMemory != 0 && c.ClusterMemory < minClusterMemory,
		"memory for clusters %d: want 0 for no bound, or at least 8Mi (%d)", c.ClusterMemory, minClusterMemory)
	p.addIf(c.PodMode && c.Transparent, "transparent listeners: not in pod mode")
	p.addIf(c.PodMode && c.UpstreamMark == 0, "mark of connections to backends: 0, by which they would be redirected again")
	c.validateTelemetry(&p)
	for name, d := range map[string]time.Duration{
		"discovery timeout": c.DiscoveryTimeout, "detect timeout": c.DetectTimeout,
		"connect timeout": c.ConnectTimeout, "upstream idle": c.UpstreamIdle,
	} {
		p.addIf(d < time.Millisecond, "%s %v: want at least 1ms", name, d)
	}
	return errors.Join(p...)
}

// validateTelemetry checks what is logged and traced, and where that goes.
func (c Config) validateTelemetry(p *problems) {
	p.addIf(new(AccessLog).UnmarshalText([]byte(c.AccessLog)) != nil, "access log %q: want text, json or off", c.AccessLog)
	if err := c.AccessLogFormat.validate(); err != nil {
		*p = append(*p, fmt.Errorf("--access-log-format: %w", err))
	}
	p.addIf(c.AccessLogFormat != "" && c.AccessLog != AccessLogText, "--access-log-format: only with --access-log=text")
	p.addIf(c.AccessLogFile != "" && (c.AccessLogFile[0] != '/' || utf8(c.AccessLogFile) != c.AccessLogFile), "--access-log-file %q: want an absolute path", c.AccessLogFile)
	p.addIf(c.AccessLogFile != "" && c.AccessLog == AccessLogOff, "--access-log-file: not with --access-log=off")
	_, _, _, isEndpoint := splitEndpoint(c.OTLPEndpoint)
	p.addIf(c.OTLPEndpoint != "" && !isEndpoint, "--otlp-endpoint %q: want HOST:PORT", c.OTLPEndpoint)
	p.addIf(c.AccessLogOTLP && c.OTLPEndpoint == "", "--access-log-otlp: needs --otlp-endpoint")
	p.addIf(c.Tracing > 0 && c.OTLPEndpoint == "", "--tracing: needs --otlp-endpoint")
	p.addIf(c.Tracing > model.Whole, "--tracing %s: want at most 100%%", c.Tracing)
	f := c.AccessLogFilter
	p.addIf(f.Sample > model.Whole || f.Slower < 0 || f.Slower > model.MaxSlower, "--access-log-filter %s: want a share of at most 100%% and a duration of at most %s", f, model.MaxSlower)
}

// byNamespace says whether namespaces may choose what is logged and traced.
func (c Config) byNamespace() bool { return c.TelemetryAnnotations && c.PodMode }

// tracing says whether any request may be traced.
func (c Config) tracing() bool { return c.OTLPEndpoint != "" && (c.Tracing > 0 || c.byNamespace()) }

// namesWorkloads says whether Envoy is to know the workloads of backends.
func (c Config) namesWorkloads() bool {
	return c.AccessLog == AccessLogJSON || c.AccessLogFormat != "" || c.AccessLogOTLP || c.tracing()
}

func (c Config) validateListeners(p *problems) {
	p.addIf(len(c.addresses()) == 0, "listener addresses: neither an IPv4 nor an IPv6 one")
	p.addIf(c.Address4.IsValid() && !c.Address4.Is4(), "IPv4 listener address %s: not IPv4", c.Address4)
	p.addIf(c.Address6.IsValid() && (!c.Address6.Is6() || c.Address6.Is4In6() || c.Address6.Zone() != ""),
		"IPv6 listener address %s: not a plain IPv6 address", c.Address6)
	for _, a := range c.addresses() {
		// An unspecified address would open the listeners to the network.
		p.addIf(a.IsUnspecified() || a.IsMulticast(), "listener address %s: want one address of this node", a)
		p.addIf(c.PodMode && !a.IsLoopback(), "listener address %s: want a loopback address in pod mode", a)
	}
	seen := map[uint16]model.Class{}
	for _, class := range model.Classes() {
		port := c.Ports.Of(class)
		p.addIf(port == 0, "port of the %s listener: 0", class)
		other, taken := seen[port]
		p.addIf(port != 0 && taken, "port of the %s listener: %d is also that of %s", class, port, other)
		seen[port] = class
	}
}

// listenerAddress is where the listener of this class listens, given one of
// the configured addresses.
func (c Config) listenerAddress(addr netip.Addr, class model.Class) netip.AddrPort {
	return netip.AddrPortFrom(addr, c.Ports.Of(class))
}

// addresses are the configured ones, v4 before v6.
func (c Config) addresses() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{c.Address4, c.Address6}, func(a netip.Addr) bool { return !a.IsValid() })
}
