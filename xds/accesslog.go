// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"net/netip"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// column is one field of the access log: its name in JSON, how text quotes it,
// and the format of what Envoy puts there for a request and for a connection,
// which is empty for what is never known.
type column struct {
	name      string
	open, end string
	http, tcp string
}

// columns are the access log's of a listener, in order. The client's address is
// that of its socket, which no header can forge. The last two are namespace/pod
// of the client, which is known in pod mode, and of the backend.
func columns(cfg Config, spec ListenerSpec) []column {
	client := ""
	if cfg.PodMode {
		client = literal(spec.Target.Name())
	}
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
		{"source_pod", "", "", client, client},
		{"backend", "", "", "%UPSTREAM_METADATA(" + metadataKey + ":" + podField + ")%", "%UPSTREAM_METADATA(" + metadataKey + ":" + podField + ")%"},
	}
}

// literal is the format that gives this text.
func literal(text string) string {
	return strings.ReplaceAll(utf8(text), "%", "%%")
}

// httpAccessLog writes a line for each request to a listener, but in host mode
// not for those whose connection was made to the listener itself.
func httpAccessLog(cfg Config, spec ListenerSpec) []*accesslogv3.AccessLog {
	logs := accessLog(cfg, spec, func(c column) string { return c.http })
	for _, l := range logs {
		if !cfg.PodMode {
			l.Filter = redirectedOnly(cfg.listenerAddress(spec.Addr, spec.Class))
		}
	}
	return logs
}

// tcpAccessLog writes a line for each connection to a listener, when it ends.
func tcpAccessLog(cfg Config, spec ListenerSpec) []*accesslogv3.AccessLog {
	return accessLog(cfg, spec, func(c column) string { return c.tcp })
}

func accessLog(cfg Config, spec ListenerSpec, value func(column) string) []*accesslogv3.AccessLog {
	var format *corev3.SubstitutionFormatString
	switch cfg.AccessLog {
	case AccessLogOff:
		return nil
	case AccessLogJSON:
		format = jsonLine(columns(cfg, spec), value)
	default:
		format = textFormat(textLine(columns(cfg, spec), value))
	}
	return []*accesslogv3.AccessLog{accessLogger(pack(&streamv3.StdoutAccessLog{
		AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: format},
	}))}
}

// textLine is the format of a line of text, with "-" for what is never known.
func textLine(columns []column, value func(column) string) string {
	line := ""
	for i, c := range columns {
		if i > 0 {
			line += " "
		}
		line += c.open + cmp.Or(value(c), "-") + c.end
	}
	return line + "\n"
}

// jsonLine is the format of an object, with null for what is never known.
func jsonLine(columns []column, value func(column) string) *corev3.SubstitutionFormatString {
	fields := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, c := range columns {
		fields.Fields[c.name] = structpb.NewNullValue()
		if v := value(c); v != "" {
			fields.Fields[c.name] = structpb.NewStringValue(v)
		}
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
