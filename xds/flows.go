// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/agent/model"
)

// RuntimeName is the name of the resource of KindRuntime, and of its layer in Envoy.
const RuntimeName = "flows"

// What Envoy sends to the agent is chosen by these keys: which share of all flows, and
// which of those that failed. A filter takes an integer for the numerator, in millionths,
// and ignores a fraction.
const (
	runtimeFlows  = "nodevoy.flows"
	runtimeFailed = "nodevoy.flows_failed"
)

// FlowShares say which share of flows Envoy sends, in millionths.
type FlowShares struct{ All, Failed uint32 }

// runtimeInputs are what the runtime keys are made of.
type runtimeInputs struct {
	flows      FlowShares
	namespaces map[string]model.Telemetry
}

// Equal compares them.
func (in runtimeInputs) Equal(other Inputs) bool {
	o, is := other.(runtimeInputs)
	return is && in.flows == o.flows && sameTelemetry(in.namespaces, o.namespaces)
}

// Message makes the layer of runtime keys.
func (in runtimeInputs) Message(Config) proto.Message {
	layer := map[string]*structpb.Value{runtimeFlows: millionths(in.flows.All), runtimeFailed: millionths(in.flows.Failed)}
	logRuntime(layer, in.namespaces)
	return &runtimev3.Runtime{Name: RuntimeName, Layer: &structpb.Struct{Fields: layer}}
}

// millionths is the value of a runtime key whose filter counts in these.
func millionths(n uint32) *structpb.Value { return structpb.NewNumberValue(float64(n)) }

// FlowTag is the one tag of a flow, beside what Envoy's gRPC access log has by itself. It
// has FlowFields, with FlowSeparator between them, each empty if it is not known: one tag
// for each took the agent a third more to read.
const (
	FlowTag       = "nodevoy"
	FlowSeparator = "\t"
)

// FlowField is one field of FlowTag, by its place.
type FlowField int

// The fields.
const (
	// FlowSource is the client's namespace/pod, in pod mode.
	FlowSource FlowField = iota
	// FlowBackend is namespace/pod, FlowNode and FlowZone where it runs.
	FlowBackend
	FlowNode
	FlowZone
	// FlowConnect is how many microseconds the connection to the backend took.
	FlowConnect
	// FlowConnectBegin is how many after the client's first byte it began; none if it
	// was there before.
	FlowConnectBegin
	// FlowKind is TLS for a connection of it, and for a request its method, which the log
	// only has if it is a well-known one.
	FlowKind
	// FlowFields is how many there are.
	FlowFields
)

// flowTag is the format of the tag.
func flowTag(cfg Config, spec ListenerSpec, as form) *tracingv3.CustomTag {
	fields := [FlowFields]string{
		FlowBackend:      backendField(podField),
		FlowNode:         backendField(nodeField),
		FlowZone:         backendField("zone"),
		FlowConnect:      "%COMMON_DURATION(US_CX_BEG:US_CX_END:us)%",
		FlowConnectBegin: "%COMMON_DURATION(DS_RX_BEG:US_CX_BEG:us)%",
	}
	if cfg.PodMode {
		fields[FlowSource] = literal(spec.Target.Name())
	}
	switch {
	case as.http():
		fields[FlowKind] = "%REQ(:METHOD)%"
	case as == formTLS:
		fields[FlowKind] = "TLS"
	}
	return &tracingv3.CustomTag{Tag: FlowTag, Type: &tracingv3.CustomTag_Value{Value: strings.Join(fields[:], FlowSeparator)}}
}

const (
	// agentCluster is the bootstrap configuration's cluster of the agent's socket.
	agentCluster = "xds"
	// flowFlush and flowBuffer, in bytes, are how long and how much each worker collects
	// before it sends.
	flowFlush, flowBuffer = 100 * time.Millisecond, 16384
)

// flowLog sends flows to the agent: as many of all, and of those that failed, as the
// runtime keys say, which is none until the agent sets them. So nothing is sent when
// nobody looks, and no listener changes for it.
func flowLog(cfg Config, spec ListenerSpec, as form) []*accesslogv3.AccessLog {
	if !cfg.Flows {
		return nil
	}
	common := &grpcv3.CommonGrpcAccessLogConfig{
		LogName:             RuntimeName,
		TransportApiVersion: corev3.ApiVersion_V3,
		GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: agentCluster},
		}},
		BufferFlushInterval: durationpb.New(flowFlush),
		BufferSizeBytes:     wrapperspb.UInt32(flowBuffer),
		CustomTags:          []*tracingv3.CustomTag{flowTag(cfg, spec, as)},
	}
	if !as.http() {
		return []*accesslogv3.AccessLog{{
			Name: RuntimeName, Filter: anyOf(sampled(runtimeFlows), allOf(failedFlags(), sampled(runtimeFailed))),
			ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(&grpcv3.TcpGrpcAccessLogConfig{CommonConfig: common})},
		}}
	}
	return []*accesslogv3.AccessLog{{
		Name: RuntimeName, Filter: anyOf(sampled(runtimeFlows), allOf(anyOf(failedStatus(), failedFlags(), failedGRPC()), sampled(runtimeFailed))),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(&grpcv3.HttpGrpcAccessLogConfig{
			CommonConfig:                    common,
			AdditionalRequestHeadersToLog:   []string{"content-type", "traceparent"},
			AdditionalResponseHeadersToLog:  []string{"grpc-status"},
			AdditionalResponseTrailersToLog: []string{"grpc-status"},
		})},
	}}
}

func anyOf(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{OrFilter: &accesslogv3.OrFilter{Filters: filters}}}
}

func allOf(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{AndFilter: &accesslogv3.AndFilter{Filters: filters}}}
}

// sampled passes the share that a runtime key has, and none without it.
func sampled(key string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_RuntimeFilter{RuntimeFilter: &accesslogv3.RuntimeFilter{
		RuntimeKey: key, PercentSampled: &typev3.FractionalPercent{Denominator: typev3.FractionalPercent_MILLION},
		// Else the share would be of request ids, which requests rarely have.
		UseIndependentRandomness: true,
	}}}
}

// failedStatus, failedFlags and failedGRPC are what flow.Flow's Failed says.
func failedStatus() *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{StatusCodeFilter: &accesslogv3.StatusCodeFilter{
		Comparison: &accesslogv3.ComparisonFilter{
			Op: accesslogv3.ComparisonFilter_GE, Value: &corev3.RuntimeUInt32{DefaultValue: 500, RuntimeKey: runtimeFailed + "_status"},
		},
	}}}
}

func failedFlags() *accesslogv3.AccessLogFilter {
	var flags []string
	for _, f := range flow.Failures() {
		flags = append(flags, string(f))
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: flags}}}
}

func failedGRPC() *accesslogv3.AccessLogFilter {
	var statuses []accesslogv3.GrpcStatusFilter_Status
	for _, s := range flow.FailedGRPC() {
		statuses = append(statuses, accesslogv3.GrpcStatusFilter_Status(s))
	}
	// Envoy makes a status of gRPC from one of HTTP where there is none.
	return allOf(isGRPC(), &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_GrpcStatusFilter{
		GrpcStatusFilter: &accesslogv3.GrpcStatusFilter{Statuses: statuses},
	}})
}

// isGRPC passes requests of gRPC.
func isGRPC() *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{HeaderFilter: &accesslogv3.HeaderFilter{
		Header: header("content-type", hasPrefix("application/grpc", false)),
	}}}
}
