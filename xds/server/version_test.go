// SPDX-License-Identifier: Apache-2.0

package server

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

func TestVersionLess(t *testing.T) {
	want := Version{1, 40, 0}
	for _, c := range []struct {
		version Version
		older   bool
	}{
		{Version{1, 39, 9}, true},
		{Version{0, 99, 99}, true},
		{Version{1, 9, 0}, true}, // Numbers, not text.
		{Version{1, 40, 0}, false},
		{Version{1, 40, 1}, false},
		{Version{1, 100, 0}, false},
		{Version{2, 0, 0}, false},
		{Version{}, false},
	} {
		if got := c.version.Less(want); got != c.older {
			t.Errorf("%q older than %q: %v, want %v", c.version, want, got, c.older)
		}
	}
	if want.Less(Version{}) {
		t.Error("a version is older than an unknown one")
	}
}

func TestVersionOf(t *testing.T) {
	for want, node := range map[string]*corev3.Node{
		"":       {UserAgentName: "envoy"},
		"1.40.2": {UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 40, Patch: 2}}}},
	} {
		if got := versionOf(node); got.String() != want || got.Known() != (want != "") {
			t.Errorf("got %q, known %v, want %q", got, got.Known(), want)
		}
	}
	if got := versionOf(nil); got.Known() {
		t.Errorf("no node at all: %q", got)
	}
}
