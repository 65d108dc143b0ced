// SPDX-License-Identifier: Apache-2.0

package envoystats

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"
)

// Path is what Envoy's admin interface is asked for: only what this package knows, as
// each cluster has a hundred statistics more.
func Path() string {
	var patterns []string
	for _, r := range table() {
		for _, s := range r.from {
			patterns = append(patterns, s.pattern)
		}
	}
	slices.Sort(patterns)
	return "/stats/prometheus?filter=" + url.QueryEscape("^("+strings.Join(slices.Compact(patterns), "|")+")$")
}

// Translate turns Envoy's text into families, in the order of their names, on a node in
// this zone. Families that Envoy has nothing for are left out.
func Translate(text io.Reader, zone string) ([]*dto.MetricFamily, error) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	envoy, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return nil, fmt.Errorf("parse Envoy's statistics: %w", err)
	}
	var out []*dto.MetricFamily
	for _, r := range table() {
		if f := r.translate(envoy, zone); len(f.Metric) > 0 {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, byName)
	return out, nil
}

// translate makes the family from those of Envoy: metrics whose labels become the same
// are added up.
func (r row) translate(envoy map[string]*dto.MetricFamily, zone string) *dto.MetricFamily {
	sums := map[string]*dto.Metric{}
	var keys []string
	for _, s := range r.from {
		for _, theirs := range envoy[s.family].GetMetric() {
			m := s.metric(theirs.Label, zone)
			values, ok := s.values(m)
			if !ok {
				continue
			}
			key := strings.Join(values, "\x00")
			if sums[key] == nil {
				sums[key], keys = r.empty(values), append(keys, key)
			}
			if s.counts == nil || s.counts(m) {
				r.add(sums[key], theirs)
			}
		}
	}
	slices.Sort(keys)
	f := &dto.MetricFamily{Name: proto.String(r.Name), Help: proto.String(r.Help), Type: r.Type.Enum()}
	for _, key := range keys {
		f.Metric = append(f.Metric, sums[key])
	}
	return f
}

// empty is a metric of the row with these label values.
func (r row) empty(values []string) *dto.Metric {
	m := &dto.Metric{}
	for i, name := range r.Labels {
		m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(name), Value: proto.String(values[i])})
	}
	slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	switch r.Type {
	case counter:
		m.Counter = &dto.Counter{Value: proto.Float64(0)}
	case histogram:
		m.Histogram = &dto.Histogram{SampleCount: proto.Uint64(0), SampleSum: proto.Float64(0)}
	default:
		m.Gauge = &dto.Gauge{Value: proto.Float64(0)}
	}
	return m
}

// add adds one of Envoy's metrics to ours.
func (r row) add(m, theirs *dto.Metric) {
	unit := cmp.Or(r.unit, 1)
	switch r.Type {
	case counter:
		*m.Counter.Value += theirs.GetCounter().GetValue() / unit
	case histogram:
		addHistogram(m.Histogram, theirs.GetHistogram(), unit)
	default:
		*m.Gauge.Value += theirs.GetGauge().GetValue() / unit
	}
}

// addHistogram adds a histogram with the same bounds as those before it.
func addHistogram(h, theirs *dto.Histogram, unit float64) {
	*h.SampleCount += theirs.GetSampleCount()
	*h.SampleSum += theirs.GetSampleSum() / unit
	if h.Bucket == nil {
		for _, b := range theirs.GetBucket() {
			h.Bucket = append(h.Bucket, &dto.Bucket{
				UpperBound: proto.Float64(b.GetUpperBound() / unit), CumulativeCount: proto.Uint64(b.GetCumulativeCount()),
			})
		}
		return
	}
	for i, b := range theirs.GetBucket()[:min(len(h.Bucket), len(theirs.GetBucket()))] {
		*h.Bucket[i].CumulativeCount += b.GetCumulativeCount()
	}
}
