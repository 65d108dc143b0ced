// SPDX-License-Identifier: Apache-2.0

package xds

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// resetByServer is true of answers that Envoy gives for a server that has reset the
// request, but not of those for one that has not begun with it (REFUSED_STREAM).
const resetByServer = `response.code_details in ["upstream_reset_before_response_started{remote_reset}",` +
	` "upstream_reset_before_response_started{protocol_error}",` +
	` "upstream_reset_before_response_started{remote_error_with_CONNECT_request}"]`

// grpcInternal is INTERNAL of gRPC.
const grpcInternal = "13"

// localReplies changes what Envoy answers in a server's place. To a gRPC client that is
// UNAVAILABLE, after which it may repeat the call. A reset is INTERNAL to it by most of
// the codes that a server gives, and is by none an invitation to repeat; Envoy
// doesn't pass on which it was.
func localReplies() *hcmv3.LocalReplyConfig {
	reset := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
		Name:       "reset",
		ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: pack(&celv3.ExpressionFilter{Expression: resetByServer})},
	}}}
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter: allOf(isGRPC(), reset),
		HeadersToAdd: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: "grpc-status", Value: grpcInternal},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
	}}}
}
