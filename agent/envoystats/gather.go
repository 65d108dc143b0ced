// SPDX-License-Identifier: Apache-2.0

package envoystats

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"
)

// gatherTimeout bounds how long a scrape waits for Envoy.
const gatherTimeout = 4 * time.Second

// Results are what may come of asking Envoy.
const (
	resultOK     = "ok"
	resultAbsent = "absent"
	resultFailed = "failed"
)

// scraped is about the gathering itself.
func scraped() Family {
	return Family{
		"nodevoy_envoy_scraped", gauge,
		[]string{"result"},
		"1 for what came of asking Envoy for its metrics: ok, absent if no Envoy runs, failed if it can't be told what Envoy has.",
		"While it is not ok, all metrics whose source is Envoy are missing, and mean nothing.",
	}
}

// ErrAbsent is wrapped by what Gatherer.Ask returns when no Envoy runs.
var ErrAbsent = errors.New("no Envoy runs")

// Gatherer gathers Envoy's metrics. It implements prometheus.Gatherer.
type Gatherer struct {
	// Ask asks Envoy for a path of its admin interface.
	Ask func(ctx context.Context, path string) (string, error)
	// Zone is the node's; empty if unknown.
	Zone func() string
}

// Gather asks Envoy. It never fails: an Envoy that doesn't answer is what a metric says,
// and takes nothing away from the others.
func (g Gatherer) Gather() ([]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(context.Background(), gatherTimeout) //nolint:forbidigo // the interface has no context
	defer cancel()
	text, err := g.Ask(ctx, Path())
	var families []*dto.MetricFamily
	if err == nil {
		families, err = Translate(strings.NewReader(text), g.Zone())
	}
	result := resultOK
	switch {
	case errors.Is(err, ErrAbsent):
		result = resultAbsent
	case err != nil:
		result, families = resultFailed, nil
	}
	r := row{Family: scraped()}
	f := &dto.MetricFamily{Name: proto.String(r.Name), Help: proto.String(r.Help), Type: r.Type.Enum()}
	for _, value := range []string{resultAbsent, resultFailed, resultOK} {
		m := r.empty([]string{value})
		if value == result {
			m.Gauge.Value = proto.Float64(1)
		}
		f.Metric = append(f.Metric, m)
	}
	families = append(families, f)
	slices.SortFunc(families, byName)
	return families, nil
}

func byName(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) }
