// SPDX-License-Identifier: Apache-2.0

package top

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const before = `# TYPE nodevoy_requests_total counter
nodevoy_requests_total{namespace="shop",service="cart",port="http",code="200"} 100
nodevoy_requests_total{namespace="shop",service="idle",port="http",code="200"} 7
# TYPE nodevoy_request_duration_seconds histogram
nodevoy_request_duration_seconds_bucket{namespace="shop",service="cart",port="http",le="0.001"} 100
nodevoy_request_duration_seconds_bucket{namespace="shop",service="cart",port="http",le="0.01"} 100
nodevoy_request_duration_seconds_bucket{namespace="shop",service="cart",port="http",le="+Inf"} 100
nodevoy_request_duration_seconds_sum{namespace="shop",service="cart",port="http"} 1
nodevoy_request_duration_seconds_count{namespace="shop",service="cart",port="http"} 100
# TYPE nodevoy_connections_total counter
nodevoy_connections_total{namespace="shop",service="db",port="5432"} 50
`

const after = `# TYPE nodevoy_requests_total counter
nodevoy_requests_total{namespace="shop",service="cart",port="http",code="200"} 190
nodevoy_requests_total{namespace="shop",service="cart",port="http",code="503"} 8
nodevoy_requests_total{namespace="shop",service="cart",port="http",code="0"} 2
nodevoy_requests_total{namespace="shop",service="idle",port="http",code="200"} 7
# TYPE nodevoy_source_requests_total counter
nodevoy_source_requests_total{namespace="shop",service="cart",port="http",source_namespace="web"} 60
nodevoy_source_requests_total{namespace="shop",service="cart",port="http",source_namespace="batch"} 40
# TYPE nodevoy_request_duration_seconds histogram
nodevoy_request_duration_seconds_bucket{namespace="shop",service="cart",port="http",le="0.001"} 150
nodevoy_request_duration_seconds_bucket{namespace="shop",service="cart",port="http",le="0.01"} 199
nodevoy_request_duration_seconds_bucket{namespace="shop",service="cart",port="http",le="+Inf"} 200
nodevoy_request_duration_seconds_sum{namespace="shop",service="cart",port="http"} 2
nodevoy_request_duration_seconds_count{namespace="shop",service="cart",port="http"} 200
# TYPE nodevoy_connections_total counter
nodevoy_connections_total{namespace="shop",service="db",port="5432"} 20
# TYPE nodevoy_connections_open gauge
nodevoy_connections_open{namespace="shop",service="db",port="5432"} 4
`

func read(t *testing.T, text string, second int64) Sample {
	t.Helper()
	s, err := Read(strings.NewReader(text), time.Unix(second, 0))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func pointer(f float64) *float64 { return &f }

var nearly = cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-9 })

func TestRatesErrorsAndLatency(t *testing.T) {
	got := Rows([]Pair{{read(t, before, 10), read(t, after, 20)}}, ByRate)
	want := []Row{
		{
			Namespace: "shop", Service: "cart", Port: "http", Requests: 10, Errors: 0.1,
			P50: pointer(0.001), P99: pointer(0.01), Sources: []string{"web", "batch"},
		},
		// Envoy has begun to count anew.
		{Namespace: "shop", Service: "db", Port: "5432", Connections: 2, Open: 4, Sources: []string{}},
	}
	if diff := cmp.Diff(want, got, nearly); diff != "" {
		t.Error(diff)
	}
}

func TestNodesAreAddedUp(t *testing.T) {
	one := Pair{read(t, before, 10), read(t, after, 20)}
	// On the other node, the same was counted in half the time.
	two := Pair{read(t, before, 10), read(t, after, 15)}
	// And nothing can be told of this one.
	none := Pair{read(t, after, 20), read(t, after, 20)}
	got := Rows([]Pair{one, two, none}, ByRate)
	if got[0].Requests != 30 || got[0].Errors != 0.1 || got[1].Connections != 6 || got[1].Open != 8 {
		t.Errorf("sums are %+v", got)
	}
}

func TestRowsAreSorted(t *testing.T) {
	text := func(errors, slow string) string {
		return `
nodevoy_requests_total{service="a",code="200"} 100
nodevoy_requests_total{service="b",code="200"} 50
nodevoy_requests_total{service="b",code="502"} ` + errors + `
# TYPE nodevoy_request_duration_seconds histogram
nodevoy_request_duration_seconds_bucket{service="c",le="1"} ` + slow + `
nodevoy_request_duration_seconds_bucket{service="c",le="+Inf"} ` + slow + `
nodevoy_requests_total{service="c",code="200"} 10
`
	}
	pairs := []Pair{{Sample{At: time.Unix(0, 0)}, read(t, text("9", "3"), 1)}}
	for order, want := range map[Order]string{ByRate: "abc", ByErrors: "bac", ByLatency: "cab"} {
		var got strings.Builder
		for _, r := range Rows(pairs, order) {
			got.WriteString(r.Service)
		}
		if got.String() != want {
			t.Errorf("by %s: %s, want %s", order, &got, want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	inf := math.Inf(1)
	for _, tt := range []struct {
		q       float64
		buckets map[float64]float64
		want    *float64
	}{
		{0.5, nil, nil},
		{0.5, map[float64]float64{1: 0, inf: 0}, nil},
		{0.5, map[float64]float64{1: 10, inf: 10}, pointer(0.5)},
		{0.9, map[float64]float64{1: 5, 2: 10, inf: 10}, pointer(1.8)},
		// Beyond the largest bound nothing is known.
		{0.99, map[float64]float64{1: 5, 10: 5, inf: 10}, pointer(10)},
	} {
		if diff := cmp.Diff(tt.want, quantile(tt.q, tt.buckets), nearly); diff != "" {
			t.Errorf("quantile %v of %v: %s", tt.q, tt.buckets, diff)
		}
	}
}

func TestWhatIsNoMetricsIsRefused(t *testing.T) {
	if _, err := Read(strings.NewReader("<html>"), time.Time{}); err == nil {
		t.Error("a page was taken for metrics")
	}
}
