// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/model/enum"
)

// AccessLog says how Envoy writes its access log.
type AccessLog string

// The forms of the access log.
const (
	AccessLogText AccessLog = "text"
	AccessLogJSON AccessLog = "json"
	AccessLogOff  AccessLog = "off"
)

// String is the form as flags write it.
func (a AccessLog) String() string { return string(a) }

// MarshalText writes the form as flags do.
func (a AccessLog) MarshalText() ([]byte, error) { return []byte(a), nil }

// UnmarshalText reads the form of the access log.
func (a *AccessLog) UnmarshalText(text []byte) error {
	return enum.Read(a, text, "access log", AccessLogText, AccessLogJSON, AccessLogOff)
}

// Config is everything about the Envoy configuration that doesn't come from
// Kubernetes. Default gives it all but the listeners' addresses and ports,
// which belong to the redirection and are set from its configuration.
type Config struct {
	// NodeID is the id Envoy gives itself: the node's name.
	NodeID string
	// Socket is the path of the unix socket of the ADS server, AdminSocket that
	// of Envoy's admin interface, and HealthSocket that where Envoy's worker
	// threads answer health checks. All are for their owner only (0600).
	Socket, AdminSocket, HealthSocket string
	// Address4 and Address6 are where the listeners listen, and nowhere else.
	// The zero address means: none of that family.
	Address4, Address6 netip.Addr
	// Ports are the listeners' ports, on each address.
	Ports model.Ports
	// Transparent is set when connections come by TPROXY, and so carry their
	// destination as the socket's own address; else they come by DNAT, and
	// Envoy asks conntrack for it.
	Transparent bool
	// PodMode is set when Envoy listens inside the pods' network namespaces, at
	// the loopback addresses, and connects to backends from there. Listeners
	// then come from the published pod targets, and Transparent is not for it.
	PodMode bool
	// UpstreamMark is the mark of Envoy's own connections to backends in pod
	// mode, by which the pod's rules let them out.
	UpstreamMark uint32
	// MaxConnectionsPerPod bounds, in pod mode, the connections that Envoy
	// takes at a time from one pod: for each capture class by itself and, where
	// the protocol is detected, for HTTP and for the rest. One too many is
	// closed at once.
	MaxConnectionsPerPod uint32
	// MaxHeap is the most memory Envoy is to use, in bytes; zero sets no bound.
	// Close to it, Envoy gives back what it can, and then takes no connections.
	MaxHeap uint64
	// AccessLog is the form of the access log on Envoy's standard output.
	AccessLog AccessLog
	// DiscoveryTimeout bounds how long a connection waits for the cluster of
	// a frontend that Envoy has not been told of. Envoy asks for a name once,
	// so later connections to an unknown one wait this long.
	DiscoveryTimeout time.Duration
	// DetectTimeout is how long the detect listener waits for the client's
	// first bytes, before it takes the connection for one that is not HTTP.
	DetectTimeout time.Duration
	// ConnectTimeout bounds one attempt to connect to a backend.
	ConnectTimeout time.Duration
	// UpstreamIdle is how long an unused HTTP connection to a backend is kept.
	// It is below what servers commonly allow, so that it is Envoy that closes
	// it and never a server just as a request is on its way.
	UpstreamIdle time.Duration
}

// Default is the configuration of a host-mode node without its node id,
// addresses and ports.
func Default() Config {
	return Config{
		Socket:               "/run/nodevoy/xds.sock",
		AdminSocket:          "/run/nodevoy/envoy-admin.sock",
		HealthSocket:         "/run/nodevoy/envoy-health.sock",
		AccessLog:            AccessLogText,
		UpstreamMark:         0x10,
		MaxConnectionsPerPod: 10_000,
		DiscoveryTimeout:     2 * time.Second,
		DetectTimeout:        500 * time.Millisecond,
		ConnectTimeout:       5 * time.Second,
		UpstreamIdle:         1500 * time.Millisecond,
	}
}

// maxSocketPath is the longest path Linux takes for a unix socket, less what
// the server needs for the temporary name it makes the socket under.
const maxSocketPath = 107 - len("/.sock-4294967295/s")

// Validate says everything that is wrong with the configuration, joined.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.NodeID == "" {
		bad("node id: empty")
	}
	for name, path := range map[string]string{
		"xds socket": c.Socket, "admin socket": c.AdminSocket, "health socket": c.HealthSocket,
	} {
		if path == "" || path[0] != '/' || len(path) > maxSocketPath {
			bad("%s %q: want an absolute path of at most %d bytes", name, path, maxSocketPath)
		}
	}
	errs = append(errs, c.validateListeners()...)
	errs = append(errs, c.validateLimits()...)
	switch c.AccessLog {
	case AccessLogText, AccessLogJSON, AccessLogOff:
	default:
		bad("access log %q: want text, json or off", c.AccessLog)
	}
	for name, d := range map[string]time.Duration{
		"discovery timeout": c.DiscoveryTimeout, "detect timeout": c.DetectTimeout,
		"connect timeout": c.ConnectTimeout, "upstream idle": c.UpstreamIdle,
	} {
		if d < time.Millisecond {
			bad("%s %v: want at least 1ms", name, d)
		}
	}
	return errors.Join(errs...)
}

func (c Config) validateListeners() []error {
	var errs []error
	if !c.Address4.IsValid() && !c.Address6.IsValid() {
		errs = append(errs, errors.New("listener addresses: neither an IPv4 nor an IPv6 one"))
	}
	if c.Address4.IsValid() && !c.Address4.Is4() {
		errs = append(errs, fmt.Errorf("IPv4 listener address %s: not IPv4", c.Address4))
	}
	if c.Address6.IsValid() && (!c.Address6.Is6() || c.Address6.Is4In6() || c.Address6.Zone() != "") {
		errs = append(errs, fmt.Errorf("IPv6 listener address %s: not a plain IPv6 address", c.Address6))
	}
	for _, a := range c.addresses() {
		// An unspecified address would open the listeners to the network.
		if a.IsUnspecified() || a.IsMulticast() {
			errs = append(errs, fmt.Errorf("listener address %s: want one address of this node", a))
		}
	}
	seen := map[uint16]model.Class{}
	for _, class := range model.Classes() {
		port := c.Ports.Of(class)
		if port == 0 {
			errs = append(errs, fmt.Errorf("port of the %s listener: 0", class))
		} else if other, ok := seen[port]; ok {
			errs = append(errs, fmt.Errorf("port of the %s listener: %d is also that of %s", class, port, other))
		}
		seen[port] = class
	}
	return errs
}

// minHeap is what Envoy needs to do anything, in bytes. The chart's values have
// the same bound.
const minHeap = 64 << 20

// validateLimits is about pod mode, and what bounds Envoy.
func (c Config) validateLimits() []error {
	var errs []error
	if c.MaxHeap != 0 && c.MaxHeap < minHeap {
		errs = append(errs, fmt.Errorf("heap bound of Envoy %d: want 0 for none, or at least 64Mi (%d)", c.MaxHeap, minHeap))
	}
	if !c.PodMode {
		return errs
	}
	for _, a := range c.addresses() {
		if !a.IsLoopback() {
			errs = append(errs, fmt.Errorf("listener address %s: want a loopback address in pod mode", a))
		}
	}
	if c.Transparent {
		errs = append(errs, errors.New("transparent listeners: not in pod mode"))
	}
	if c.UpstreamMark == 0 {
		errs = append(errs, errors.New("mark of connections to backends: 0, by which they would be redirected again"))
	}
	if c.MaxConnectionsPerPod == 0 {
		errs = append(errs, errors.New("most connections per pod: 0"))
	}
	return errs
}

// listenerAddress is where the listener of this class listens, given one of
// the configured addresses.
func (c Config) listenerAddress(addr netip.Addr, class model.Class) netip.AddrPort {
	return netip.AddrPortFrom(addr, c.Ports.Of(class))
}

// addresses are the configured ones, v4 before v6.
func (c Config) addresses() []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{c.Address4, c.Address6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// ownAddresses are the addresses of the listeners themselves, as Envoy writes
// them: what a connection has for its destination that was not redirected.
func (c Config) ownAddresses() []string {
	var out []string
	for _, addr := range c.addresses() {
		for _, class := range model.Classes() {
			out = append(out, c.listenerAddress(addr, class).String())
		}
	}
	return out
}
