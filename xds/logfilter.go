// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"maps"
	"math"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/nodevoy/nodevoy/agent/model"
)

// logKeys are the runtime keys of a namespace's filter of the access log. Runtime keys
// change what is logged without a change of the listeners, which would end connections.
type logKeys struct{ sample, errors, slower string }

// logKeysOf are those of a namespace; of the node, without one.
func logKeysOf(namespace string) logKeys {
	prefix := "nodevoy.access_log." + namespace
	return logKeys{prefix + ".sample", prefix + ".errors", prefix + ".slower"}
}

// logFilter selects what of a listener is logged: by what the pod's Namespace says, where
// it may, else by the node's setting. It is nil where everything is; false if nothing is.
func logFilter(cfg Config, spec ListenerSpec, as form) (*accesslogv3.AccessLogFilter, bool) {
	f := cfg.AccessLogFilter
	failed := failedFlags()
	if as.http() {
		failed = anyOf(failedStatus(), failedFlags(), failedGRPC())
	}
	keys := logKeysOf(spec.Target.Namespace)
	if cfg.byNamespace() {
		return anyOf(
			sampledFrom(keys.sample, f.Sample),
			allOf(sampledFrom(keys.errors, shareOf(f.Errors)), failed),
			slowerThan(keys.slower, f.Slower),
		), true
	}
	var selected []*accesslogv3.AccessLogFilter
	if f.Errors {
		selected = append(selected, failed)
	}
	if f.Slower > 0 {
		selected = append(selected, slowerThan(keys.slower, f.Slower))
	}
	if f.Sample > 0 {
		selected = append(selected, sampledFrom(keys.sample, f.Sample))
	}
	switch {
	case f.Sample == model.Whole:
		return nil, true
	case len(selected) == 0:
		return nil, false
	case len(selected) == 1:
		return selected[0], true
	}
	return anyOf(selected...), true
}

// shareOf is all or nothing.
func shareOf(all bool) model.Share {
	if all {
		return model.Whole
	}
	return 0
}

// sampledFrom passes the share that a runtime key has; a default without it.
func sampledFrom(key string, without model.Share) *accesslogv3.AccessLogFilter {
	f := sampled(key)
	f.GetRuntimeFilter().PercentSampled = fraction(without)
	return f
}

func fraction(of model.Share) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: uint32(of), Denominator: typev3.FractionalPercent_MILLION}
}

// slowerThan passes what took as long as a runtime key says, in milliseconds; a default
// without it.
func slowerThan(key string, without time.Duration) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_DurationFilter{DurationFilter: &accesslogv3.DurationFilter{
		Comparison: &accesslogv3.ComparisonFilter{
			Op: accesslogv3.ComparisonFilter_GE, Value: &corev3.RuntimeUInt32{DefaultValue: milliseconds(without), RuntimeKey: key},
		},
	}}}
}

// milliseconds is a duration in those; 49 days for zero, which nothing takes.
func milliseconds(d time.Duration) uint32 {
	if d == 0 {
		return math.MaxUint32
	}
	return uint32(d.Milliseconds())
}

// logRuntime adds the runtime keys of the namespaces that say what is logged.
func logRuntime(layer map[string]*structpb.Value, namespaces map[string]model.Telemetry) {
	for namespace, t := range namespaces {
		if t.AccessLog == nil {
			continue
		}
		keys := logKeysOf(namespace)
		layer[keys.sample] = millionths(uint32(t.AccessLog.Sample))
		layer[keys.errors] = millionths(uint32(shareOf(t.AccessLog.Errors)))
		layer[keys.slower] = structpb.NewNumberValue(float64(milliseconds(t.AccessLog.Slower)))
	}
}

// sameTelemetry says whether namespaces say the same.
func sameTelemetry(a, b map[string]model.Telemetry) bool {
	return maps.EqualFunc(a, b, func(x, y model.Telemetry) bool {
		return samePointed(x.AccessLog, y.AccessLog) && samePointed(x.Tracing, y.Tracing)
	})
}

// samePointed says whether both are nil or point to equal values.
func samePointed[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}
