// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/model/enum"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Mode is where on the node connections are redirected.
type Mode string

// The modes.
const (
	// AutoMode lets the probe of the node choose.
	AutoMode Mode = "auto"
	// PodMode redirects in each enrolled pod's own network namespace, where
	// Envoy listens too, and from where it dials the backends.
	PodMode Mode = "pod"
	// HostMode redirects in the host's network namespace.
	HostMode Mode = "host"
)

// String is the mode as flags and logs write it.
func (m Mode) String() string { return string(m) }

// MarshalText writes the mode as flags do.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m), nil }

// UnmarshalText reads a mode's name.
func (m *Mode) UnmarshalText(text []byte) error {
	return enum.Read(m, text, "mode of redirection", AutoMode, PodMode, HostMode)
}

// Mechanism is how connections get to Envoy.
type Mechanism string

// The mechanisms.
const (
	// AutoMechanism lets the probe of the node choose.
	AutoMechanism Mechanism = "auto"
	// DNAT rewrites the destination in nat PREROUTING.
	DNAT Mechanism = "dnat"
	// TPROXY hands the packet to Envoy's socket as it is.
	TPROXY Mechanism = "tproxy"
)

// String is the mechanism as flags and logs write it.
func (m Mechanism) String() string { return string(m) }

// MarshalText writes the mechanism as flags do.
func (m Mechanism) MarshalText() ([]byte, error) { return []byte(m), nil }

// UnmarshalText reads a mechanism's name.
func (m *Mechanism) UnmarshalText(text []byte) error {
	return enum.Read(m, text, "mechanism", AutoMechanism, DNAT, TPROXY)
}

// Config is what the node's owner may choose about redirection.
type Config struct {
	Mode Mode
	// Mechanism is how HostMode redirects; PodMode has only one way.
	Mechanism Mechanism
	// Backend is the iptables to write with: the one kube-proxy uses, unless
	// told otherwise.
	Backend netfilter.Backend
	// Families are those to redirect; Probe leaves out what the node lacks.
	Families []family.Family
	// Address4 and Address6 are put on lo for Envoy to listen on.
	Address4, Address6 netip.Addr
	Ports              model.Ports
	// Mark is the bit, or bits, of the packet mark that tproxy uses, and in
	// PodMode Envoy on its own connections; Table is tproxy's routing table and
	// the priority of the rule that leads to it.
	Mark  uint32
	Table int
	// Timeout is how long pods stay redirected without Refresh.
	Timeout time.Duration
	// MaxConnections is how many connections of one pod's address, to all
	// frontends together, are redirected at a time; further ones are left to
	// kube-proxy. 0 is for no limit.
	MaxConnections uint32
	// MaxConnectionRate is the same for how many connections a second are redirected.
	MaxConnectionRate uint32
	// Uncounted is set by the probe where the kernel can't count connections, so
	// that MaxConnections is no limit, and Unmeasured where it can't measure their
	// rate.
	Uncounted, Unmeasured bool
	// Unguarded is set by the probe where the kernel can't tell Envoy's sockets from
	// those of the node that listen on all addresses, with dnat.
	Unguarded bool
}

// DefaultConfig is the configuration made of the reserved names and numbers.
func DefaultConfig() Config {
	return Config{
		Mode:      AutoMode,
		Mechanism: AutoMechanism,
		Backend:   netfilter.AutoBackend,
		Families:  family.All(),
		Address4:  netip.MustParseAddr(listenerAddress4),
		Address6:  netip.MustParseAddr(listenerAddress6),
		Ports:     model.Ports{TCP: portTCP, HTTP: portHTTP, Detect: portDetect},
		Mark:      defaultMark,
		Table:     defaultTable,
		Timeout:   30 * time.Second,

		MaxConnections: defaultMaxConnections,
	}
}

// Limited says whether the rules limit the connections of a pod.
func (c Config) Limited() bool { return c.MaxConnections > 0 && !c.Uncounted && c.tracked() }

// RateLimited says whether the rules limit the new connections of a pod in a second.
func (c Config) RateLimited() bool { return c.MaxConnectionRate > 0 && !c.Unmeasured && c.tracked() }

// counts says whether the rules note pods that make too many connections.
func (c Config) counts() bool { return c.Limited() || c.RateLimited() }

// tracked is whether conntrack knows the redirected connections. It does not with
// tproxy, so that the kernel can't count them, and what is left to kube-proxy would
// have to be told from them in two tables.
func (c Config) tracked() bool { return c.Mode == PodMode || c.Mechanism != TPROXY }

// Validate says everything that is wrong with the configuration, joined.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := new(Mode).UnmarshalText([]byte(c.Mode)); err != nil {
		bad("mode: %w", err)
	}
	if err := new(Mechanism).UnmarshalText([]byte(c.Mechanism)); err != nil {
		bad("mechanism: %w", err)
	}
	if err := new(netfilter.Backend).UnmarshalText([]byte(c.Backend)); err != nil {
		bad("iptables backend: %w", err)
	}
	if len(c.Families) == 0 {
		bad("families: none, so nothing can be redirected")
	}
	if !c.Address4.Is4() || !c.Address4.IsLinkLocalUnicast() {
		bad("listener address %s is not in 169.254.0.0/16", c.Address4)
	}
	if !c.Address6.Is6() || c.Address6.Is4In6() || !c.Address6.IsPrivate() {
		bad("listener address %s is not in fc00::/7", c.Address6)
	}
	p := c.Ports
	if p.TCP == 0 || p.HTTP == 0 || p.Detect == 0 {
		bad("listener ports %d, %d, %d: none may be 0", p.TCP, p.HTTP, p.Detect)
	}
	if p.TCP == p.HTTP || p.HTTP == p.Detect || p.TCP == p.Detect {
		bad("listener ports %d, %d, %d: no two may be equal", p.TCP, p.HTTP, p.Detect)
	}
	if c.Mark == 0 {
		bad("mark: 0 marks nothing")
	}
	// 253 to 255 are the kernel's own tables, and 32766 is the priority of main.
	if c.Table < 1 || c.Table > 32765 || (c.Table >= 253 && c.Table <= 255) {
		bad("route table %d is not within 1 to 252 or 256 to 32765", c.Table)
	}
	// ipset counts whole seconds, and a refresh comes every third of it.
	if c.Timeout < 3*time.Second || c.Timeout > time.Hour || c.Timeout%time.Second != 0 {
		bad("redirect timeout %s is not whole seconds within 3s to 1h", c.Timeout)
	}
	if c.MaxConnections > maxMaxConnections {
		bad("maximum of connections of a pod %d: want 0 for none, or up to %d", c.MaxConnections, maxMaxConnections)
	}
	if c.MaxConnectionRate > maxMaxConnectionRate {
		bad("maximum of connections of a pod in a second %d: want 0 for none, or up to %d", c.MaxConnectionRate, maxMaxConnectionRate)
	}
	return errors.Join(errs...)
}

// Address is where Envoy listens for one family.
func (c Config) Address(f family.Family) netip.Addr {
	if c.Mode == PodMode {
		return f.Loopback()
	}
	return family.Pick(f, c.Address4, c.Address6)
}

// PolicyRule is the policy rule of tproxy.
func (c Config) PolicyRule(f family.Family) netfilter.PolicyRule {
	return netfilter.PolicyRule{Family: f, Mark: c.Mark, Table: c.Table, Priority: c.Table}
}
