// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/netip"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// column is one field of the access log: its name in JSON, how text quotes it,
// and what Envoy puts there for a request and for a connection.
type column struct {
	name      string
	open, end string
	http, tcp string
}

// columns are the access log's, in order. The client's address is that of its
// socket, which no header can forge. The last two are namespace/pod of the
// client, which Envoy knows in pod mode, and of the backend.
func columns() []column {
	return []column{
		{"time", "[", "]", "%START_TIME%", "%START_TIME%"},
		{"method", `"`, "", "%REQ(:METHOD)%", "-"},
		{"path", "", "", "%REQ(:PATH)%", "-"},
		{"protocol", "", `"`, "%PROTOCOL%", "-"},
		{"code", "", "", "%RESPONSE_CODE%", "-"},
		{"bytes_sent", "", "", "%BYTES_SENT%", "%BYTES_SENT%"},
		{"duration_ms", "", "", "%DURATION%", "%DURATION%"},
		{"request_id", "", "", "%REQ(X-REQUEST-ID)%", "-"},
		{"user_agent", `"`, `"`, "%REQ(USER-AGENT)%", "-"},
		{"x_forwarded_for", `"`, `"`, "%REQ(X-FORWARDED-FOR)%", "-"},
		{"upstream_host", "", "", "%UPSTREAM_HOST%", "%UPSTREAM_HOST%"},
		{"upstream_cluster", "", "", "%UPSTREAM_CLUSTER%", "%UPSTREAM_CLUSTER%"},
		{"response_flags", "", "", "%RESPONSE_FLAGS%", "%RESPONSE_FLAGS%"},
		{"source", "", "", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"},
		{"source_pod", "", "", "%METADATA(LISTENER:" + metadataKey + ":" + podField + ")%", "%METADATA(LISTENER:" + metadataKey + ":" + podField + ")%"},
		{"backend", "", "", "%UPSTREAM_METADATA(" + metadataKey + ":" + podField + ")%", "%UPSTREAM_METADATA(" + metadataKey + ":" + podField + ")%"},
	}
}

// httpAccessLog writes a line for each request, but not for those made to the
// listener itself, at the address own, if it is one.
func httpAccessLog(cfg Config, own netip.AddrPort) []*accesslogv3.AccessLog {
	logs := accessLog(cfg, func(c column) string { return c.http })
	for _, l := range logs {
		if own.IsValid() {
			l.Filter = redirectedOnly(own)
		}
	}
	return logs
}

// tcpAccessLog writes a line for each connection, when it ends.
func tcpAccessLog(cfg Config) []*accesslogv3.AccessLog {
	return accessLog(cfg, func(c column) string { return c.tcp })
}

func accessLog(cfg Config, value func(column) string) []*accesslogv3.AccessLog {
	var format *corev3.SubstitutionFormatString
	switch cfg.AccessLog {
	case AccessLogOff:
		return nil
	case AccessLogJSON:
		format = jsonLine(value)
	default:
		format = textFormat(textLine(value))
	}
	return []*accesslogv3.AccessLog{accessLogger(pack(&streamv3.StdoutAccessLog{
		AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: format},
	}))}
}

func textLine(value func(column) string) string {
	line := ""
	for i, c := range columns() {
		if i > 0 {
			line += " "
		}
		line += c.open + value(c) + c.end
	}
	return line + "\n"
}

func jsonLine(value func(column) string) *corev3.SubstitutionFormatString {
	fields := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, c := range columns() {
		fields.Fields[c.name] = structpb.NewStringValue(value(c))
	}
	return &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: fields},
	}
}

// redirectedOnly leaves out requests to the listener's own address. Their
// destination header is still there when the line is written, as they reach no
// upstream; for all others it is gone.
func redirectedOnly(own netip.AddrPort) *accesslogv3.AccessLogFilter {
	header := headerIs(destinationHeader, own.String())
	header.InvertMatch = true
	header.TreatMissingHeaderAsEmpty = true
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{
		HeaderFilter: &accesslogv3.HeaderFilter{Header: header},
	}}
}
