// SPDX-License-Identifier: Apache-2.0

package plan

import "github.com/nodevoy/nodevoy/agent/model/enum"

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
