// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/handover"
	"github.com/nodevoy/nodevoy/agent/healthcheck"
	"github.com/nodevoy/nodevoy/agent/kernelflow"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/xds"
)

// Config is everything an agent is told, all of it by flags.
type Config struct {
	// NodeName is the name of this node's Node object.
	NodeName string
	// Objects is a directory of Kubernetes YAML to read instead of an API server.
	Objects string
	// Kubeconfig is the file that leads to the API server; empty means the
	// pod's own service account.
	Kubeconfig string
	// RunDir holds the agent's sockets.
	RunDir string
	// HostDir is a directory that all agents started on this node share, where
	// generations take turns. Empty means RunDir, for nodes with one agent.
	HostDir string
	// MetricsAddress is the host:port of metrics and health; empty turns them off.
	MetricsAddress string
	// DebugAddress is the loopback IP:port of the debug endpoint; empty for its unix
	// socket alone. DebugPprof adds the Go runtime's profiles to the socket.
	DebugAddress string
	DebugPprof   bool
	// Version is the program's, and Flags what it was told, to show. LogLevel is what the
	// log's level can be changed by; may be nil.
	Version  string
	Flags    []view.Flag
	LogLevel *zap.AtomicLevel
	// Debounce is how long a change waits for others to share a round with.
	Debounce time.Duration
	// StuckAfter is the age of an unapplied change from which the agent is unhealthy.
	StuckAfter time.Duration
	// CleanupOnExit removes everything from the kernel when the agent is told
	// to stop. Without it the rules stay for the next agent, and expire if
	// none comes.
	CleanupOnExit bool
	// DrainTimeout is how long, after it stopped redirecting, an agent that
	// cleans up waits for Envoy's connections to end. Zero does not drain.
	DrainTimeout time.Duration
	// Flows says which flows the agent keeps.
	Flows FlowConfig
	// Model, XDS and Redirect configure the three steps of a round.
	Model    model.Options
	XDS      xds.Config
	Redirect plan.Config
	// Netns says where pods' network namespaces are found, for pod mode.
	Netns netns.Config
}

// DefaultConfig is what an agent does when told nothing but its node's name.
func DefaultConfig() Config {
	return Config{
		RunDir: "/run/nodevoy",
		// Beside the listeners' ports, for the same reasons. Istio's gateways take 15020
		// in the node's network, too.
		MetricsAddress: "127.0.0.1:23720",
		Debounce:       20 * time.Millisecond,
		StuckAfter:     time.Minute,
		Flows:          FlowConfig{Kept: 5000, Kernel: kernelflow.DefaultRate},
		Model:          model.DefaultOptions(),
		XDS:            xds.Default(),
		Redirect:       plan.DefaultConfig(),
		Netns:          netns.DefaultConfig(),
	}
}

// DebugSocket is the unix socket at which the agent of this run directory
// answers `nodevoy status` and its own health checks.
func DebugSocket(runDir string) string { return filepath.Join(runDir, healthcheck.AgentSocket) }

// slotStep is how far apart the listener ports of two generations are.
const slotStep = 10

// envoyLimit is how many times the kernel's limit of a pod's connections is that of
// Envoy, in pod mode. Envoy closes what is above it, so the kernel's comes first, also
// when the kernel has begun to count anew because its rule was repaired or changed.
// Envoy's holds where the kernel can't count, and for pods that change their own rules.
const envoyLimit = 2

// inSlot moves the listeners to the ports of a slot of package handover. Which ports
// pods can't have stays: it would change with each update else.
func (c Config) inSlot(slot int) Config {
	ofAll := c.Resolved().Model.ListenerPorts
	c.Redirect.Ports = portsIn(c.Redirect.Ports, slot)
	c = c.Resolved()
	c.Model.ListenerPorts = ofAll
	return c
}

// portsIn are the listeners' ports in a slot, given those of the first.
func portsIn(p model.Ports, slot int) model.Ports {
	shift := uint16(slot * slotStep)
	return model.Ports{TCP: p.TCP + shift, HTTP: p.HTTP + shift, Detect: p.Detect + shift}
}

// Resolved fills in what follows from other settings: socket paths from the
// run directory, and Envoy's listeners, and whose labels and endpoints count, from
// where redirection sends connections.
func (c Config) Resolved() Config {
	if c.HostDir == "" {
		c.HostDir = c.RunDir
	}
	c.XDS.NodeID = c.NodeName
	c.XDS.Socket = filepath.Join(c.RunDir, "xds.sock")
	c.XDS.AdminSocket = filepath.Join(c.RunDir, healthcheck.EnvoyAdminSocket)
	c.XDS.HealthSocket = filepath.Join(c.RunDir, healthcheck.EnvoySocket)
	c.XDS.PodMode = c.Redirect.Mode == plan.PodMode
	c.XDS.Flows = c.Flows.Share != flow.ShareOff
	c.XDS.Transparent = !c.XDS.PodMode && c.Redirect.Mechanism == plan.TPROXY
	c.XDS.UpstreamMark = c.Redirect.Mark
	c.XDS.MaxConnectionsPerPod = envoyLimit * c.Redirect.MaxConnections
	c.XDS.Ports = c.Redirect.Ports
	c.XDS.Address4, c.XDS.Address6 = c.listenerAddress(family.V4), c.listenerAddress(family.V6)
	c.Model.HostMode = !c.XDS.PodMode
	c.Model.TelemetryAnnotations = c.XDS.TelemetryAnnotations
	c.Model.ListenerPorts = nil
	for slot := range handover.Slots {
		if c.XDS.PodMode {
			c.Model.ListenerPorts = append(c.Model.ListenerPorts, portsIn(c.Redirect.Ports, slot).All()...)
		}
	}
	c.Model.ListenerAddresses = []netip.Addr{c.Redirect.Address4, c.Redirect.Address6}
	return c
}

// listenerAddress is where Envoy listens for one family; the zero address when
// the family is left alone.
func (c Config) listenerAddress(f family.Family) netip.Addr {
	if !slices.Contains(c.Redirect.Families, f) {
		return netip.Addr{}
	}
	return c.Redirect.Address(f)
}

// maxKept bounds how many flows are kept: about 1 kB each.
const maxKept = 1_000_000

// clash says whether two different ports are the same in two slots. Two Envoys
// would then share connections of different classes.
func clash(a, b uint16) bool {
	apart := max(a, b) - min(a, b)
	return apart != 0 && apart%slotStep == 0 && apart < handover.Slots*slotStep
}

// Validate checks every setting and returns all that is wrong with them.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.NodeName == "" {
		bad("--node-name is required")
	}
	if c.Objects != "" && c.Kubeconfig != "" {
		bad("--objects and --kubeconfig exclude each other")
	}
	if !filepath.IsAbs(c.RunDir) {
		bad("--run-dir %q is not an absolute path", c.RunDir)
	}
	// A unix socket's path has 107 usable bytes (unix(7)).
	if n := len(filepath.Join(c.RunDir, healthcheck.EnvoySocket)); n > 107 {
		bad("--run-dir: %d bytes with the socket's name, more than the 107 a unix socket's path may have", n)
	}
	if top := max(c.Redirect.Ports.TCP, c.Redirect.Ports.HTTP, c.Redirect.Ports.Detect); int(top)+handover.Slots*slotStep > 65535 {
		bad("listener port %d leaves no room for the ports of %d generations, %d apart", top, handover.Slots, slotStep)
	}
	if p := c.Redirect.Ports; clash(p.TCP, p.HTTP) || clash(p.HTTP, p.Detect) || clash(p.TCP, p.Detect) {
		bad("listener ports %d, %d, %d: one generation's would be another's, whose ports are %d higher", p.TCP, p.HTTP, p.Detect, slotStep)
	}
	if c.MetricsAddress != "" {
		_, port, err := net.SplitHostPort(c.MetricsAddress)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			bad("--metrics-address %q: %w", c.MetricsAddress, err)
		}
	}
	if c.Flows.Kept < 1 || c.Flows.Kept > maxKept {
		bad("--flows-kept %d is not within 1 to %d", c.Flows.Kept, maxKept)
	}
	if c.DebugAddress != "" {
		if err := checkLoopback(c.DebugAddress); err != nil {
			errs = append(errs, err)
		}
		if c.DebugAddress == c.MetricsAddress {
			bad("--debug-address and --metrics-address are both %s", c.DebugAddress)
		}
	}
	if c.Debounce < 0 || c.Debounce > time.Second {
		bad("--debounce %s is not within 0 to 1s", c.Debounce)
	}
	if c.HostDir != "" && !filepath.IsAbs(c.HostDir) {
		bad("--host-dir %q is not an absolute path", c.HostDir)
	}
	if c.DrainTimeout < 0 {
		bad("--drain-timeout %s is negative", c.DrainTimeout)
	}
	if c.StuckAfter < time.Second {
		bad("--stuck-after %s is under 1s", c.StuckAfter)
	}
	envoy := c.Resolved().XDS
	envoy.NodeID = cmp.Or(envoy.NodeID, "missing") // which is said already
	return errors.Join(append(errs, c.Model.Validate(), c.Redirect.Validate(), c.Netns.Validate(), envoy.Validate())...)
}
