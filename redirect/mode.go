// SPDX-License-Identifier: Apache-2.0

package redirect

import "fmt"

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

// UnmarshalText reads a mode's name.
func (m *Mode) UnmarshalText(text []byte) error {
	switch v := Mode(text); v {
	case AutoMode, PodMode, HostMode:
		*m = v
		return nil
	}
	return fmt.Errorf("%q is no mode of redirection: want auto, pod or host", text)
}
