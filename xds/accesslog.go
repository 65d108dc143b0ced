// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// perRequest and perConnection say for what the access log has a line.
const perRequest, perConnection = true, false

// column is one field of the access log: its name in JSON, its quotes in text,
// and Envoy's format of its value, which is empty for what is never known. header
// is the request's header that the value is, if it is one.
type column struct {
	name, open, end, format, header string
}

// columns are those of a listener's access log, in order. The client's address
// is that of its socket, which no header can forge. The last two columns are
// namespace/pod of the client, which may be unknown, and of the backend.
func columns(client string, requests bool) []column {
	about := func(format string) string {
		if requests {
			return format
		}
		return "-"
	}
	sent := func(name, open, end, header string) column {
		return column{name, open, end, about("%REQ(" + header + ")%"), header}
	}
	return []column{
		{"time", "[", "]", "%START_TIME%", ""},
		// Of no bytes but those of a token, in both versions of HTTP.
		{"method", `"`, "", about("%REQ(:METHOD)%"), ""},
		sent("path", "", "", ":PATH"),
		{"protocol", "", `"`, about("%PROTOCOL%"), ""},
		{"code", "", "", about("%RESPONSE_CODE%"), ""},
		{"bytes_sent", "", "", "%BYTES_SENT%", ""},
		{"duration_ms", "", "", "%DURATION%", ""},
		sent("request_id", "", "", "X-REQUEST-ID"),
		sent("user_agent", `"`, `"`, "USER-AGENT"),
		sent("x_forwarded_for", `"`, `"`, "X-FORWARDED-FOR"),
		{"upstream_host", "", "", "%UPSTREAM_HOST%", ""},
		{"upstream_cluster", "", "", "%UPSTREAM_CLUSTER%", ""},
		{"response_flags", "", "", "%RESPONSE_FLAGS%", ""},
		{"source", "", "", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", ""},
		{"source_pod", "", "", strings.ReplaceAll(utf8(client), "%", "%%"), ""},
		{"backend", "", "", "%UPSTREAM_METADATA(" + metadataKey + ":" + podField + ")%", ""},
	}
}

// accessLog writes a line for each request to a listener or, when it ends, for
// each connection. Envoy escapes nothing in text: there, a request whose client
// wrote what could pass for further columns or lines has an object of JSON instead.
func accessLog(cfg Config, spec ListenerSpec, requests bool) []*accesslogv3.AccessLog {
	client := ""
	if cfg.PodMode {
		client = spec.Target.Name()
	}
	all := columns(client, requests)
	switch {
	case cfg.AccessLog == AccessLogOff:
		return nil
	case cfg.AccessLog == AccessLogJSON:
		return []*accesslogv3.AccessLog{stdout(jsonLine(all), nil)}
	case !requests:
		return []*accesslogv3.AccessLog{stdout(textLine(all), nil)}
	}
	return []*accesslogv3.AccessLog{stdout(textLine(all), everyPlain(all)), stdout(jsonLine(all), anyNotPlain(all))}
}

// stdout writes what passes the filter to standard output.
func stdout(format *corev3.SubstitutionFormatString, filter *accesslogv3.AccessLogFilter) *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{Name: "stdout", Filter: filter, ConfigType: &accesslogv3.AccessLog_TypedConfig{
		TypedConfig: pack(&streamv3.StdoutAccessLog{
			AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{LogFormat: format},
		}),
	}}
}

// everyPlain passes requests of which each header that has a column is plain, or not
// there.
func everyPlain(columns []column) *accesslogv3.AccessLogFilter {
	var filters []*accesslogv3.AccessLogFilter
	for _, c := range columns {
		if c.header != "" {
			absent := &routev3.HeaderMatcher{
				Name: c.header, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: false},
			}
			filters = append(filters, anyOf(headerFilter(absent), headerFilter(c.plain())))
		}
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: filters},
	}}
}

// anyNotPlain passes all other requests.
func anyNotPlain(columns []column) *accesslogv3.AccessLogFilter {
	var filters []*accesslogv3.AccessLogFilter
	for _, c := range columns {
		if c.header != "" {
			filters = append(filters, headerFilter(inverted(c.plain())))
		}
	}
	return anyOf(filters...)
}

// plain matches a header that can't be taken for more than its column: it has neither
// quotes nor control characters nor, outside of quotes, a space, and is not nothing.
func (c column) plain() *routev3.HeaderMatcher {
	if c.open != "" && c.end != "" {
		return header(c.header, matchesAll("[ !#-~]*"))
	}
	return header(c.header, matchesAll("[!#-~]+"))
}

func anyOf(filters ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{
		OrFilter: &accesslogv3.OrFilter{Filters: filters},
	}}
}

func headerFilter(m *routev3.HeaderMatcher) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{
		HeaderFilter: &accesslogv3.HeaderFilter{Header: m},
	}}
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
