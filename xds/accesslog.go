// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// perRequest and perConnection say for what the access log has a line.
const perRequest, perConnection = true, false

// column is one field of the access log: its name in JSON, its quotes in text,
// and Envoy's format of its value, which is empty for what is never known.
type column struct {
	name, open, end, format string
}

// columns are those of a listener's access log, in order: first what Envoy and the
// agent know, which has no spaces, and then what the client wrote. Envoy 1.40 escapes
// nothing in text, so quotes of the client can shift the columns after them; none of
// these is a fact. Line feeds and other control characters of ASCII, but for a tab, get
// through neither version of HTTP. The client's address is that of its socket, which no
// header can forge. source_pod, which may be unknown, and backend are namespace/pod.
func columns(client string, requests bool) []column {
	request := func(format string) string {
		if requests {
			return format
		}
		return "-"
	}
	return []column{
		{"time", "[", "]", "%START_TIME%"},
		{"code", "", "", request("%RESPONSE_CODE%")},
		{"bytes_sent", "", "", "%BYTES_SENT%"},
		{"duration_ms", "", "", "%DURATION%"},
		{"upstream_host", "", "", "%UPSTREAM_HOST%"},
		{"upstream_cluster", "", "", "%UPSTREAM_CLUSTER%"},
		{"response_flags", "", "", "%RESPONSE_FLAGS%"},
		{"source", "", "", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"},
		{"source_pod", "", "", strings.ReplaceAll(utf8(client), "%", "%%")},
		{"backend", "", "", "%UPSTREAM_METADATA(" + metadataKey + ":" + podField + ")%"},
		{"method", `"`, "", request("%REQ(:METHOD)%")},
		{"path", "", "", request("%REQ(:PATH)%")},
		{"protocol", "", `"`, request("%PROTOCOL%")},
		{"request_id", `"`, `"`, request("%REQ(X-REQUEST-ID)%")},
		{"user_agent", `"`, `"`, request("%REQ(USER-AGENT)%")},
		{"x_forwarded_for", `"`, `"`, request("%REQ(X-FORWARDED-FOR)%")},
	}
}

// accessLogs are those of a chain whose clusters are of a form.
func accessLogs(cfg Config, spec ListenerSpec, as form) []*accesslogv3.AccessLog {
	return append(accessLog(cfg, spec, as.http()), flowLog(cfg, spec, as)...)
}

// accessLog writes a line for each request to a listener or, when it ends, for
// each connection.
func accessLog(cfg Config, spec ListenerSpec, requests bool) []*accesslogv3.AccessLog {
	client := ""
	if cfg.PodMode {
		client = spec.Target.Name()
	}
	if cfg.AccessLog == AccessLogOff {
		return nil
	}
	format := textLine(columns(client, requests))
	if cfg.AccessLog == AccessLogJSON {
		format = jsonLine(columns(client, requests))
	}
	return []*accesslogv3.AccessLog{{Name: "stdout", ConfigType: &accesslogv3.AccessLog_TypedConfig{
		TypedConfig: pack(&streamv3.StdoutAccessLog{
			AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: format},
		}),
	}}}
}

// textLine is the format of a line of text, with "-" for what is never known.
func textLine(columns []column) *corev3.SubstitutionFormatString {
	var words []string
	for _, c := range columns {
		words = append(words, c.open+cmp.Or(c.format, "-")+c.end)
	}
	return textFormat(strings.Join(words, " ") + "\n")
}

// jsonLine is the format of an object, with null for what is never known.
func jsonLine(columns []column) *corev3.SubstitutionFormatString {
	fields := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for _, c := range columns {
		fields.Fields[c.name] = structpb.NewNullValue()
		if c.format != "" {
			fields.Fields[c.name] = structpb.NewStringValue(c.format)
		}
	}
	return &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: fields},
	}
}
