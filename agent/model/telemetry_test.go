// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

func TestShare(t *testing.T) {
	for text, want := range map[string]model.Share{
		"0%": 0, "100%": model.Whole, "5%": 50_000, "0.5%": 5_000, "0.0001%": 1, "33.3333%": 333_333, "12.5%": 125_000,
	} {
		var got model.Share
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want || got.String() != text {
			t.Errorf("%s: %d (%s), %v; want %d", text, got, got, err, want)
		}
	}
	for _, text := range []string{"", "%", "5", "-1%", "+1%", "101%", "1e1%", "NaN%", "Inf%", "0x1p4%", "0.00001%", "5 %", "5%%", ".%", "100.0001%"} {
		got := model.Share(7)
		if err := got.UnmarshalText([]byte(text)); err == nil || got != 7 {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}

func TestLogFilter(t *testing.T) {
	for text, want := range map[string]model.LogFilter{
		"all": model.LogAll(), "off": {}, "errors": {Errors: true},
		"slower=500ms":                   {Slower: 500 * time.Millisecond},
		"sample=10%":                     {Sample: 100_000},
		"errors,slower=1m0s,sample=0.1%": {Errors: true, Slower: time.Minute, Sample: 1000},
	} {
		var got model.LogFilter
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want || got.String() != text {
			t.Errorf("%s: %+v (%s), %v; want %+v", text, got, got, err, want)
		}
	}
	var spaced model.LogFilter
	if err := spaced.UnmarshalText([]byte(" slower=1s, errors ")); err != nil || spaced.String() != "errors,slower=1s" {
		t.Errorf("with spaces: %s, %v", spaced, err)
	}
	for _, text := range []string{
		"", ",", "errors,", "none", "all,errors", "off,errors", "errors=yes", "slower", "slower=", "slower=0", "slower=-1s", "slower=1us",
		"slower=1.5ms", "slower=25h", "slower=5", "sample", "sample=5", "sample=101%", "errors,errors", "slower=1s,slower=2s", "ERRORS",
	} {
		got := model.LogFilter{Errors: true}
		if err := got.UnmarshalText([]byte(text)); err == nil || got != (model.LogFilter{Errors: true}) {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}

// TestTelemetry: what a Namespace can't say, or says in vain, is its Problem and counts
// for nothing; the rest counts.
func TestTelemetry(t *testing.T) {
	errs, fifth := &model.LogFilter{Errors: true}, new(model.Share(200_000))
	for name, test := range map[string]struct {
		log, tracing   string
		host, disabled bool
		want           map[string]model.Telemetry
		problems       []string
	}{
		"nothing":       {want: map[string]model.Telemetry{}},
		"both":          {log: "errors", tracing: "20%", want: map[string]model.Telemetry{"shop": {AccessLog: errs, Tracing: fifth}}},
		"log":           {log: "errors", want: map[string]model.Telemetry{"shop": {AccessLog: errs}}},
		"one is wrong":  {log: "some", tracing: "20%", want: map[string]model.Telemetry{"shop": {Tracing: fifth}}, problems: []string{"treated as not set"}},
		"host mode":     {log: "errors", tracing: "20%", host: true, want: map[string]model.Telemetry{}, problems: []string{"host mode", "host mode"}},
		"not permitted": {log: "errors", disabled: true, want: map[string]model.Telemetry{}, problems: []string{"--telemetry-annotations"}},
	} {
		t.Run(name, func(t *testing.T) {
			ns := namespace("shop", "enabled")
			ns.Annotations = map[string]string{}
			for key, value := range map[string]string{model.AccessLogAnnotation: test.log, model.TracingAnnotation: test.tracing} {
				if value != "" {
					ns.Annotations[key] = value
				}
			}
			opts := model.DefaultOptions()
			opts.HostMode, opts.TelemetryAnnotations = test.host, !test.disabled
			node := model.Build(model.Inputs{NodeName: nodeName, Namespaces: []*corev1.Namespace{nil, ns}}, opts)
			if diff := cmp.Diff(test.want, node.Telemetry); diff != "" {
				t.Errorf("telemetry (-want +got):\n%s", diff)
			}
			if len(node.Problems) != len(test.problems) {
				t.Fatalf("problems: %v", node.Problems)
			}
			for i, want := range test.problems {
				if p := node.Problems[i]; p.Kind != "Namespace" || p.Name != "shop" || !strings.Contains(p.Detail, want) || !strings.Contains(p.Field, "nodevoy.io/") {
					t.Errorf("problem %v, want %q", p, want)
				}
			}
		})
	}
}
