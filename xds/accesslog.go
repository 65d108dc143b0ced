// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// column is one field of the access log: its name in JSON, its quotes in text, and
// Envoy's format of its value, which is empty for what is never known.
type column struct {
	name, open, end, format string
	// named is set if it is not among the columns of text, whose number is fixed.
	named bool
}

// text is the format of its value in text.
func (c column) text() string { return cmp.Or(c.format, "-") }

// columns are those of a listener's access log, in order: first what Envoy and the
// agent know, which has no spaces, and then what the client wrote. Envoy 1.40 escapes
// nothing in text, so quotes of the client can shift the columns after them; none of
// these is a fact. Line feeds and other control characters of ASCII, but for a tab, get
// through neither version of HTTP. The client's address is that of its socket, which no
// header can forge. source_pod, which may be unknown, and backend are namespace/pod.
func columns(cfg Config, spec ListenerSpec, requests bool) []column {
	pod, workload := "", ""
	if cfg.PodMode {
		pod, workload = spec.Target.Name(), spec.Target.Workload
	}
	request := func(format string) string {
		if requests {
			return format
		}
		return "-"
	}
	return []column{
		{name: "time", open: "[", end: "]", format: "%START_TIME%"},
		{name: "code", format: request("%RESPONSE_CODE%")},
		{name: "bytes_sent", format: "%BYTES_SENT%"},
		{name: "duration_ms", format: "%DURATION%"},
		{name: "upstream_host", format: "%UPSTREAM_HOST%"},
		{name: "upstream_cluster", format: "%UPSTREAM_CLUSTER%"},
		{name: "response_flags", format: "%RESPONSE_FLAGS%"},
		{name: "source", format: "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"},
		{name: "source_pod", format: literal(pod)},
		{name: "source_workload", format: literal(workload), named: true},
		{name: "source_node", format: literal(cfg.NodeID), named: true},
		{name: "backend", format: backendField(podField)},
		{name: "backend_workload", format: backendField(workloadField), named: true},
		{name: "backend_node", format: backendField(nodeField), named: true},
		{name: "method", open: `"`, format: request("%REQ(:METHOD)%")},
		{name: "path", format: request("%REQ(:PATH)%")},
		{name: "protocol", end: `"`, format: request("%PROTOCOL%")},
		{name: "request_id", open: `"`, end: `"`, format: request("%REQ(X-REQUEST-ID)%")},
		{name: "user_agent", open: `"`, end: `"`, format: request("%REQ(USER-AGENT)%")},
		{name: "x_forwarded_for", open: `"`, end: `"`, format: request("%REQ(X-FORWARDED-FOR)%")},
	}
}

// accessLogs are those of a chain whose clusters are of a form.
func accessLogs(cfg Config, spec ListenerSpec, as form) []*accesslogv3.AccessLog {
	return slices.Concat(accessLog(cfg, spec, as), flowLog(cfg, spec, as), countLog(cfg, spec, as))
}

// accessLog has a line, or a record of OTLP, for each request to a listener or, when it
// ends, for each connection.
func accessLog(cfg Config, spec ListenerSpec, as form) []*accesslogv3.AccessLog {
	filter, some := logFilter(cfg, spec, as)
	if !some {
		return nil
	}
	var logs []*accesslogv3.AccessLog
	add := func(name string, config proto.Message) {
		logs = append(logs, &accesslogv3.AccessLog{
			Name: name, Filter: filter, ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(config)},
		})
	}
	fields := columns(cfg, spec, as.http())
	if format := lineFormat(cfg, fields); format != nil && cfg.AccessLogFile != "" {
		add("file", &filev3.FileAccessLog{
			Path: cfg.AccessLogFile, AccessLogFormat: &filev3.FileAccessLog_LogFormat{LogFormat: format},
		})
	} else if format != nil {
		add("stdout", &streamv3.StdoutAccessLog{AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: format}})
	}
	if cfg.AccessLogOTLP {
		add("otlp", otlpLog(cfg, spec, fields))
	}
	return logs
}

// lineFormat is the format of a line; nil if there are none.
func lineFormat(cfg Config, columns []column) *corev3.SubstitutionFormatString {
	switch {
	case cfg.AccessLog == AccessLogOff:
		return nil
	case cfg.AccessLog == AccessLogJSON:
		return jsonLine(columns)
	case cfg.AccessLogFormat != "":
		return textFormat(cfg.AccessLogFormat.line(columns))
	}
	return textFormat(textLine(columns) + "\n")
}

// textLine is the format of a line of text, with "-" for what is never known.
func textLine(columns []column) string {
	var words []string
	for _, c := range columns {
		if !c.named {
			words = append(words, c.open+c.text()+c.end)
		}
	}
	return strings.Join(words, " ")
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
