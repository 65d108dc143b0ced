// SPDX-License-Identifier: Apache-2.0

// Package flows reads what Envoy reports of requests and connections, as its gRPC access
// log has it. It is pure.
package flows

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	servicev3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/xds"
)

// Decoder reads messages of Envoy.
type Decoder struct {
	// Query is set to keep the query of a request's path.
	Query bool
}

// Decode returns the flows of one message. They have the addresses and names that Envoy
// knows.
func (d Decoder) Decode(msg *servicev3.StreamAccessLogsMessage) []flow.Flow {
	http, tcp := msg.GetHttpLogs().GetLogEntry(), msg.GetTcpLogs().GetLogEntry()
	out := make([]flow.Flow, 0, len(http)+len(tcp))
	for _, e := range http {
		out = append(out, d.request(e))
	}
	for _, e := range tcp {
		f, kind := common(e.GetCommonProperties())
		f.Protocol = cmp.Or(kind, "TCP")
		f.BytesSent, f.BytesReceived = e.GetConnectionProperties().GetReceivedBytes(), e.GetConnectionProperties().GetSentBytes()
		f.Detail = e.GetCommonProperties().GetConnectionTerminationDetails()
		out = append(out, f)
	}
	return out
}

// request is one of HTTP.
func (d Decoder) request(e *alsv3.HTTPAccessLogEntry) flow.Flow {
	f, kind := common(e.GetCommonProperties())
	req, resp := e.GetRequest(), e.GetResponse()
	f.Protocol = protocol(e)
	f.Method = req.GetRequestMethod().String()
	if f.Method == "METHOD_UNSPECIFIED" {
		f.Method = ""
	}
	f.Method = cmp.Or(kind, f.Method)
	path, query, _ := strings.Cut(req.GetPath(), "?")
	f.Path, f.Host = path, req.GetAuthority()
	if d.Query {
		f.Query = query
	}
	f.Status = int(resp.GetResponseCode().GetValue())
	if f.Protocol == "gRPC" {
		f.GRPCStatus = grpcStatus(resp)
	}
	f.BytesSent = req.GetRequestHeadersBytes() + req.GetRequestBodyBytes()
	f.BytesReceived = resp.GetResponseHeadersBytes() + resp.GetResponseBodyBytes()
	f.Detail, f.RequestID = resp.GetResponseCodeDetails(), req.GetRequestId()
	// Version, trace id, parent id and flags (www.w3.org/TR/trace-context).
	if parts := strings.Split(req.GetRequestHeaders()["traceparent"], "-"); len(parts) >= 4 && len(parts[1]) == 32 {
		f.TraceID = parts[1]
	}
	return f
}

// protocol is gRPC by its content type, or else the version of HTTP.
func protocol(e *alsv3.HTTPAccessLogEntry) string {
	if strings.HasPrefix(e.GetRequest().GetRequestHeaders()["content-type"], "application/grpc") {
		return "gRPC"
	}
	switch e.GetProtocolVersion() {
	case alsv3.HTTPAccessLogEntry_HTTP10:
		return "HTTP/1.0"
	case alsv3.HTTPAccessLogEntry_HTTP2:
		return "HTTP/2"
	case alsv3.HTTPAccessLogEntry_HTTP11:
		return "HTTP/1.1"
	default:
		return "HTTP"
	}
}

// grpcStatus is the one of the trailers, or of a response without a body.
func grpcStatus(resp *alsv3.HTTPResponseProperties) int {
	for _, in := range []map[string]string{resp.GetResponseTrailers(), resp.GetResponseHeaders()} {
		if status, err := strconv.Atoi(in["grpc-status"]); err == nil {
			return status
		}
	}
	return -1
}

// common is what requests and connections have both, and the tag's xds.FlowKind.
func common(c *alsv3.AccessLogCommon) (flow.Flow, string) {
	f := flow.Flow{
		Origin: flow.OriginEnvoy, Time: c.GetStartTime().AsTime(), GRPCStatus: -1,
		Source:    flow.Peer{Address: address(c.GetDownstreamDirectRemoteAddress())},
		Frontend:  address(c.GetDownstreamLocalAddress()),
		Backend:   flow.Peer{Address: address(c.GetUpstreamRemoteAddress())},
		Duration:  millis(c.GetDuration()),
		FirstByte: millis(c.GetTimeToFirstUpstreamRxByte()),
		Attempts:  int(c.GetUpstreamRequestAttemptCount()),
		Flags:     flags(c.GetResponseFlags()),
	}
	tag := fields(c)
	f.Source.Namespace, f.Source.Pod, _ = strings.Cut(tag[xds.FlowSource], "/")
	f.Backend.Namespace, f.Backend.Pod, _ = strings.Cut(tag[xds.FlowBackend], "/")
	f.Backend.Node, f.Backend.Zone = tag[xds.FlowNode], tag[xds.FlowZone]
	if since, err := strconv.Atoi(tag[xds.FlowConnectBegin]); err == nil && since >= 0 {
		if took, err := strconv.Atoi(tag[xds.FlowConnect]); err == nil && took >= 0 {
			f.Connect = flow.Millis(time.Duration(took) * time.Microsecond)
		}
	}
	return f, tag[xds.FlowKind]
}

// fields are those of the tag; all are empty if it is not as this version has it.
func fields(c *alsv3.AccessLogCommon) (out [xds.FlowFields]string) {
	parts := strings.Split(c.GetCustomTags()[xds.FlowTag], xds.FlowSeparator)
	if len(parts) != len(out) {
		return out
	}
	copy(out[:], parts)
	return out
}

func millis(d *durationpb.Duration) flow.Millis { return flow.Millis(d.AsDuration()) }

// address is the zero value for what is no address of IP.
func address(a *corev3.Address) netip.AddrPort {
	ip, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(a.GetSocketAddress().GetPortValue()))
}

// flags are the short names that Envoy's text log has (source/common/stream_info/utility.h).
func flags(r *alsv3.ResponseFlags) []flow.Flag {
	if r == nil {
		return nil
	}
	var out []flow.Flag
	for _, f := range []struct {
		set  bool
		name flow.Flag
	}{
		{r.GetFailedLocalHealthcheck(), "LH"},
		{r.GetNoHealthyUpstream(), "UH"},
		{r.GetUpstreamRequestTimeout(), "UT"},
		{r.GetLocalReset(), "LR"},
		{r.GetUpstreamRemoteReset(), "UR"},
		{r.GetUpstreamConnectionFailure(), "UF"},
		{r.GetUpstreamConnectionTermination(), "UC"},
		{r.GetUpstreamOverflow(), "UO"},
		{r.GetNoRouteFound(), "NR"},
		{r.GetDelayInjected(), "DI"},
		{r.GetFaultInjected(), "FI"},
		{r.GetRateLimited(), "RL"},
		{r.GetUnauthorizedDetails() != nil, "UAEX"},
		{r.GetRateLimitServiceError(), "RLSE"},
		{r.GetDownstreamConnectionTermination(), "DC"},
		{r.GetUpstreamRetryLimitExceeded(), "URX"},
		{r.GetStreamIdleTimeout(), "SI"},
		{r.GetInvalidEnvoyRequestHeaders(), "IH"},
		{r.GetDownstreamProtocolError(), "DPE"},
		{r.GetUpstreamMaxStreamDurationReached(), "UMSDR"},
		{r.GetResponseFromCacheFilter(), "RFCF"},
		{r.GetNoFilterConfigFound(), "NFCF"},
		{r.GetDurationTimeout(), "DT"},
		{r.GetUpstreamProtocolError(), "UPE"},
		{r.GetNoClusterFound(), "NC"},
		{r.GetOverloadManager(), "OM"},
		{r.GetDnsResolutionFailure(), "DF"},
		{r.GetDownstreamRemoteReset(), "DR"},
	} {
		if f.set {
			out = append(out, f.name)
		}
	}
	return out
}
