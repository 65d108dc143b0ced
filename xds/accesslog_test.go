// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"testing"

	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/nodevoy/nodevoy/agent/model"
)

// TestSourcePod: the client's pod is in the format itself, and no part of its
// name is taken for a command.
func TestSourcePod(t *testing.T) {
	for name, tc := range map[string]struct {
		cfg  Config
		pod  string
		want any
	}{
		"host mode":     {testConfig(), "", nil},
		"pod mode":      {podConfig(), "web-1", "shop/web-1"},
		"percent signs": {podConfig(), "%PROTOCOL%", "shop/%%PROTOCOL%%"},
		"not UTF-8":     {podConfig(), "web\xff", "shop/web?"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.cfg.AccessLog = AccessLogJSON
			spec := ListenerSpec{Target: model.PodTarget{Namespace: "shop", Pod: tc.pod}}
			for _, as := range []form{formHTTP1, formTCP} {
				log := &streamv3.StdoutAccessLog{}
				if err := accessLog(tc.cfg, spec, as)[0].GetTypedConfig().UnmarshalTo(log); err != nil {
					t.Fatal(err)
				}
				field, ok := log.GetLogFormat().GetJsonFormat().GetFields()["source_pod"]
				if !ok || field.AsInterface() != tc.want {
					t.Errorf("%s: %v, want %v", as, field, tc.want)
				}
				if _, null := field.GetKind().(*structpb.Value_NullValue); null != (tc.want == nil) {
					t.Errorf("%s: %v is null: %v", as, field, null)
				}
			}
		})
	}
}
