// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// Version is a version of Envoy; the zero Version is an unknown one.
type Version struct {
	known               bool
	major, minor, patch uint32
}

// NewVersion is the version major.minor.patch.
func NewVersion(major, minor, patch uint32) Version {
	return Version{known: true, major: major, minor: minor, patch: patch}
}

// VersionOf is the version that Envoy says it has; unknown if it says none.
func VersionOf(node *corev3.Node) Version {
	v := node.GetUserAgentBuildVersion().GetVersion()
	if v == nil {
		return Version{}
	}
	return NewVersion(v.GetMajorNumber(), v.GetMinorNumber(), v.GetPatch())
}

// Known says whether the version is known.
func (v Version) Known() bool { return v.known }

// Less says whether v is older than w. An unknown version is older than none,
// and none is older than it.
func (v Version) Less(w Version) bool {
	return v.known && w.known && cmp.Or(cmp.Compare(v.major, w.major), cmp.Compare(v.minor, w.minor), cmp.Compare(v.patch, w.patch)) < 0
}

// String is the version as releases are called, such as 1.40.0, and empty if it
// is unknown.
func (v Version) String() string {
	if !v.known {
		return ""
	}
	return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch)
}
