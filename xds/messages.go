// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func listenerFilter(name string, config proto.Message) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(config)}}
}

func networkFilter(name string, config proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(config)}}
}

func httpFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(config)}}
}

func extension(name string, config proto.Message) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: pack(config)}
}

func textFormat(text string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: inline(text)}}
}

func inline(text string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}}
}

func socketAddress(a netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       a.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

// ads names the stream to the agent as the source of resources.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

// hasPrefix matches text that starts with the prefix.
func hasPrefix(prefix string, ignoreCase bool) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}, IgnoreCase: ignoreCase}
}

// header matches requests whose header of this name matches.
func header(name string, text *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: text}}
}

// headerIs matches requests whose header of this name is exactly value.
func headerIs(name, value string) *routev3.HeaderMatcher {
	return header(name, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}})
}

// matches matches requests whose header of this name matches a regular expression as a
// whole.
func matches(name, expression string) *routev3.HeaderMatcher {
	return header(name, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: expression},
	}})
}

// present matches requests that have a header of this name.
func present(name string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
}

// inverted matches what m doesn't. It changes m.
func inverted(m *routev3.HeaderMatcher) *routev3.HeaderMatcher {
	m.InvertMatch = true
	return m
}

// remoteKeepalive makes the kernel find servers that vanished, in about two minutes. The
// client's and the server's own keepalive end at Envoy, so Envoy's must do what theirs
// did. It keeps up a half-closed connection, too, which conntrack on the way may forget
// after 60 s (nf_conntrack_tcp_timeout_close_wait): two of its probes may be lost.
func remoteKeepalive() *corev3.TcpKeepalive { return tcpKeepalive(25, 10, 9) }

// localKeepalive makes the kernel find pods that vanished, within 6 s, so that what
// their connections hold is free again. They are on the node, and it is their kernel
// that answers, so nothing but their end keeps it from that. Conntrack, which rewrites
// their addresses, forgets no half-closed connection meanwhile.
func localKeepalive() *corev3.TcpKeepalive { return tcpKeepalive(3, 1, 3) }

// tcpKeepalive asks an idle peer after a time and then in each interval, in seconds,
// whether it is there, and ends the connection after so many probes without an answer.
func tcpKeepalive(time, interval, probes uint32) *corev3.TcpKeepalive {
	return &corev3.TcpKeepalive{
		KeepaliveTime:     wrapperspb.UInt32(time),
		KeepaliveInterval: wrapperspb.UInt32(interval),
		KeepaliveProbes:   wrapperspb.UInt32(probes),
	}
}

// Options of sockets and their level, as on all of Linux's common architectures
// (include/uapi/asm-generic/socket.h).
const solSocket, soSndBuf, soRcvBuf, soOOBInline, soMark = 1, 7, 8, 10, 36

// urgentInline keeps urgent data in its place in the stream. Envoy, which reads nothing
// out of band, would lose the byte.
func urgentInline() *corev3.SocketOption { return socketOption("SO_OOBINLINE", soOOBInline, 1) }

// socketOption sets an option of solSocket before the socket is bound.
func socketOption(name string, option, value int64) *corev3.SocketOption {
	return &corev3.SocketOption{
		Description: name, Level: solSocket, Name: option,
		Value: &corev3.SocketOption_IntValue{IntValue: value},
		State: corev3.SocketOption_STATE_PREBIND,
	}
}

// utf8 replaces bytes that are not UTF-8, which a message can't hold.
func utf8(text string) string { return strings.ToValidUTF8(text, "?") }
