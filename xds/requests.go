// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"strconv"
	"strings"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	statslogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stats/v3"
	transformv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/actions/transform_stat/v3"
	statinputv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/stats/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What the statistics of requests are called in Envoy, under StatPrefix, and their tags.
const (
	StatPrefix = "nodevoy"
	// StatRequests counts requests.
	StatRequests = "requests"
	// StatDuration is how long they take, in microseconds.
	StatDuration = "request_us"
	// StatUnconnected counts connections to backends that were not made.
	StatUnconnected = "unconnected"
	// TagPort is the Service port, as namespace/service/port.
	TagPort = "port"
	// TagCode is one of Codes.
	TagCode = "code"
	// TagSource is the namespace of the calling pod, in pod mode.
	TagSource = "source"
	// TagZone is the backend's zone.
	TagZone = "zone"
	// TagNode is the backend's node.
	TagNode = "node"
)

// The most counters and histograms of requests. Tags have few values each, so that
// a node with fewer is an ordinary one; above them, Envoy counts what it has.
const maxRequestCounters, maxRequestHistograms = 50_000, 5_000

// Codes are the values of TagCode: the common codes of answers by themselves, others by
// their class, and 0 where the client left before there was one. A server may
// answer anything, and each value takes memory of Envoy and of who reads it.
func Codes() []string {
	return []string{
		"0", "200", "201", "204", "206", "301", "302", "304", "400", "401", "403", "404", "409", "422", "429", "499",
		"500", "502", "503", "504", "1xx", "2xx", "3xx", "4xx", "5xx", otherCode,
	}
}

// otherCode is the value for what is no code of HTTP.
const otherCode = "other"

// countLog counts what a chain has whose clusters are of a form: requests or, as the
// clusters count all else, connections that no backend took.
func countLog(cfg Config, spec ListenerSpec, as form) []*accesslogv3.AccessLog {
	switch {
	case !cfg.RequestMetrics:
		return nil
	case as.http():
		return []*accesslogv3.AccessLog{requestStats(cfg, spec)}
	}
	return []*accesslogv3.AccessLog{unconnectedStats()}
}

// upstreamLog is that of each attempt to send a request to a backend.
func upstreamLog(cfg Config) []*accesslogv3.AccessLog {
	if !cfg.RequestMetrics {
		return nil
	}
	return []*accesslogv3.AccessLog{unconnectedStats()}
}

// requestStats counts each request, and how long it took.
func requestStats(cfg Config, spec ListenerSpec) *accesslogv3.AccessLog {
	port := statTag(TagPort, "%UPSTREAM_CLUSTER%")
	code := statTag(TagCode, "%RESPONSE_CODE%")
	code.Rules = codeRules()
	tags := []*statslogv3.Config_Tag{port, code, statTag(TagZone, backendField("zone"))}
	if cfg.PodMode {
		tags = append(tags, statTag(TagSource, literal(spec.Target.Namespace)))
	}
	return statsLog(&statslogv3.Config{
		Counters: []*statslogv3.Config_Counter{count(StatRequests, tags...)},
		Histograms: []*statslogv3.Config_Histogram{{
			Stat:        &statslogv3.Config_Stat{Name: StatDuration, Tags: []*statslogv3.Config_Tag{port}},
			Unit:        statslogv3.Config_Histogram_Microseconds,
			ValueFormat: "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
		}},
	})
}

// unconnectedStats counts the backends that did not take a connection, by their node.
func unconnectedStats() *accesslogv3.AccessLog {
	log := statsLog(&statslogv3.Config{
		Counters: []*statslogv3.Config_Counter{count(StatUnconnected, statTag(TagNode, backendField("node")))},
	})
	log.Filter = &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
		ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{"UF"}},
	}}
	return log
}

// statsLog is an access log that counts. All of them share one scope, and with it the
// bounds: a pod that goes takes no count along. What nobody adds to is forgotten after a
// while (see the bootstrap), as the clusters of Services that are gone are.
func statsLog(config *statslogv3.Config) *accesslogv3.AccessLog {
	config.StatsScope = &typev3.Scope{
		Prefix: StatPrefix, SharingName: StatPrefix, EnableEviction: true,
		MaxCounters: wrapperspb.UInt32(maxRequestCounters), MaxHistograms: wrapperspb.UInt32(maxRequestHistograms),
	}
	return &accesslogv3.AccessLog{Name: "stats", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(config)}}
}

func count(name string, tags ...*statslogv3.Config_Tag) *statslogv3.Config_Counter {
	return &statslogv3.Config_Counter{Stat: &statslogv3.Config_Stat{Name: name, Tags: tags}, ValueFixed: wrapperspb.UInt64(1)}
}

func statTag(name, format string) *statslogv3.Config_Tag {
	return &statslogv3.Config_Tag{Name: name, ValueFormat: format}
}

// backendField formats what an endpoint's metadata says.
func backendField(field string) string {
	return "%UPSTREAM_METADATA(" + metadataKey + ":" + field + ")%"
}

// literal formats text as it is.
func literal(text string) string { return strings.ReplaceAll(utf8(text), "%", "%%") }

// codeRules make every value of a code one of Codes: an exact match keeps it, else the
// first digit decides.
func codeRules() *xdsmatcherv3.Matcher {
	exact, class := map[string]*xdsmatcherv3.Matcher_OnMatch{}, map[string]*xdsmatcherv3.Matcher_OnMatch{}
	for _, code := range Codes() {
		if _, err := strconv.Atoi(code); err == nil {
			exact[code] = setTag(code)
		} else if code != otherCode {
			class[code[:1]] = setTag(code)
		}
	}
	tree := func(t *xdsmatcherv3.Matcher_MatcherTree) *xdsmatcherv3.Matcher {
		t.Input = &xdscorev3.TypedExtensionConfig{Name: "value", TypedConfig: pack(&statinputv3.StatTagValueInput{})}
		return &xdsmatcherv3.Matcher{MatcherType: &xdsmatcherv3.Matcher_MatcherTree_{MatcherTree: t}}
	}
	byClass := tree(&xdsmatcherv3.Matcher_MatcherTree{TreeType: &xdsmatcherv3.Matcher_MatcherTree_PrefixMatchMap{
		PrefixMatchMap: &xdsmatcherv3.Matcher_MatcherTree_MatchMap{Map: class},
	}})
	byClass.OnNoMatch = setTag(otherCode)
	rules := tree(&xdsmatcherv3.Matcher_MatcherTree{TreeType: &xdsmatcherv3.Matcher_MatcherTree_ExactMatchMap{
		ExactMatchMap: &xdsmatcherv3.Matcher_MatcherTree_MatchMap{Map: exact},
	}})
	rules.OnNoMatch = &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Matcher{Matcher: byClass}}
	return rules
}

func setTag(value string) *xdsmatcherv3.Matcher_OnMatch {
	return &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{Action: &xdscorev3.TypedExtensionConfig{
		Name:        "set",
		TypedConfig: pack(&transformv3.TransformStat{UpdateTag: &transformv3.TransformStat_UpdateTag{NewTagValue: value}}),
	}}}
}
