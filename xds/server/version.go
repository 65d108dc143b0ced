// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Version is a version of Envoy: major, minor, patch. The zero Version is an
// unknown one.
type Version [3]uint32

// versionOf is the version that Envoy reports; unknown if it reports none.
func versionOf(node *corev3.Node) Version {
	v := node.GetUserAgentBuildVersion().GetVersion()
	return Version{v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch()}
}

// Known says whether the version is known.
func (v Version) Known() bool { return v != Version{} }

// Less says whether v is older than w; false if either is unknown.
func (v Version) Less(w Version) bool {
	return v.Known() && w.Known() && slices.Compare(v[:], w[:]) < 0
}

// String is the version in the form 1.40.0; empty if it is unknown.
func (v Version) String() string {
	if !v.Known() {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2])
}
