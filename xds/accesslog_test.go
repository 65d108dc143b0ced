// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"testing"

	"github.com/nodevoy/nodevoy/agent/model"
)

// TestSourcePod: the client's pod is in the format itself, and no part of its
// name is taken for a command.
func TestSourcePod(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  Config
		pod  string
		want string
	}{
		"host mode":         {testConfig(), "", ""},
		"pod mode":          {podConfig(), "web-1", "shop/web-1"},
		"percent signs":     {podConfig(), "%PROTOCOL%", "shop/%%PROTOCOL%%"},
		"bytes of no UTF-8": {podConfig(), "web\xff", "shop/web?"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := ListenerSpec{Target: model.PodTarget{Namespace: "shop", Pod: tc.pod}}
			for _, requests := range []bool{perRequest, perConnection} {
				for _, c := range columns(tc.cfg, spec, requests) {
					if c.name == "source_pod" && c.format != tc.want {
						t.Errorf("per request %v: %q, want %q", requests, c.format, tc.want)
					}
				}
			}
		})
	}
}
