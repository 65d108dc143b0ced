// SPDX-License-Identifier: Apache-2.0

package envoystats

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/nodevoy/nodevoy/xds"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// TestGolden translates what a real Envoy printed after calls of each kind, in each
// mode (test/e2e, TestMetrics).
func TestGolden(t *testing.T) {
	for _, mode := range []string{"host", "pod"} {
		families, err := Translate(strings.NewReader(exposition(t, mode)), "lab-node-a")
		if err != nil {
			t.Fatal(err)
		}
		got, golden := written(t, families), "testdata/"+mode+".golden.txt"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s mode (-want +got):\n%s", mode, d)
		}
	}
}

// TestSources: a real Envoy has every statistic that the table names. One that an
// Envoy calls otherwise would be missing for ever.
func TestSources(t *testing.T) {
	text := exposition(t, "pod")
	for _, r := range table() {
		for _, s := range r.from {
			if !strings.Contains(text, "# TYPE "+s.family+" ") {
				t.Errorf("%s: Envoy has no %s", r.Name, s.family)
			}
		}
	}
}

// TestPath: what Envoy is asked for has a pattern for each source, and one only.
func TestPath(t *testing.T) {
	for _, r := range table() {
		for _, s := range r.from {
			if n := strings.Count(Path(), url.QueryEscape(s.pattern)); n != 1 {
				t.Errorf("%s: %q is in the filter %d times", r.Name, s.pattern, n)
			}
		}
	}
}

// TestFamilies: names are unique and sorted, and say what Prometheus expects of their
// type; each family says what it is and what it is for.
func TestFamilies(t *testing.T) {
	name := regexp.MustCompile(`^nodevoy_[a-z_]+$`)
	last := ""
	for _, f := range Families() {
		if f.Name <= last || !name.MatchString(f.Name) || strings.HasSuffix(f.Name, "_total") != (f.Type == counter) {
			t.Errorf("%s, %s after %s", f.Name, f.Type, last)
		}
		if !strings.HasSuffix(f.Help, ".") || !strings.HasSuffix(f.Use, ".") {
			t.Errorf("%s: help %q, use %q", f.Name, f.Help, f.Use)
		}
		last = f.Name
	}
}

// TestBound: a Service port has no more series than is promised, whatever is called and
// by whom, and 100 of them as many as the documentation says.
func TestBound(t *testing.T) {
	const ports, zones, sources = 100, 3, 4
	var text strings.Builder
	text.WriteString("# TYPE envoy_nodevoy_requests counter\n")
	for port := range ports {
		for _, code := range xds.Codes() {
			for zone := range zones {
				for source := range sources {
					fmt.Fprintf(&text, "envoy_nodevoy_requests{port=\"shop/s-%d/http\",code=%q,zone=\"z%d\",source=\"n%d\"} 1\n", port, code, zone, source)
				}
			}
		}
	}
	text.WriteString(spread(t, exposition(t, "pod"), ports))
	families, err := Translate(strings.NewReader(text.String()), "z0")
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, f := range families {
		for _, m := range f.Metric {
			if slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName() == "service" }) {
				most += series(m)
			}
		}
	}
	if want := ports * (SeriesPerPort + sources); most != want {
		t.Errorf("%d Service ports have %d series at most, want %d", ports, most, want)
	}
}

// TestGather: what can't be asked or understood takes nothing away, and is told from
// an Envoy that isn't there.
func TestGather(t *testing.T) {
	text := exposition(t, "pod")
	cases := map[string]struct {
		text   string
		err    error
		result string
	}{
		"an answer":     {text, nil, "ok"},
		"no Envoy":      {"", fmt.Errorf("dial: %w", ErrAbsent), "absent"},
		"an error":      {"", errors.New("timeout"), "failed"},
		"not metrics":   {"<html>\n", nil, "failed"},
		"half a metric": {text[:len(text)/2] + "\nenvoy_server_uptime{", nil, "failed"},
		"nothing":       {"", nil, "ok"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := Gatherer{
				Ask:  func(context.Context, string) (string, error) { return c.text, c.err },
				Zone: func() string { return "" },
			}
			families, err := g.Gather()
			if err != nil {
				t.Fatal(err)
			}
			got := written(t, families)
			for _, result := range []string{"ok", "absent", "failed"} {
				value := 0
				if result == c.result {
					value = 1
				}
				if want := fmt.Sprintf("nodevoy_envoy_scraped{result=%q} %d\n", result, value); !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			if there := strings.Contains(got, "nodevoy_requests_total"); there != (name == "an answer") {
				t.Errorf("requests are there: %v", there)
			}
		})
	}
}

// FuzzTranslate: no text makes it panic or print what can't be read back.
func FuzzTranslate(f *testing.F) {
	for _, mode := range []string{"host", "pod"} {
		f.Add(exposition(f, mode))
	}
	f.Fuzz(func(t *testing.T, text string) {
		families, err := Translate(strings.NewReader(text), "z")
		if err == nil {
			written(t, families)
		}
	})
}

// exposition is what a real Envoy printed.
func exposition(t testing.TB, mode string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + mode + ".envoy.txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// spread makes what is about one Service port, in a real text, be about many.
func spread(t *testing.T, text string, ports int) string {
	t.Helper()
	const from = `"shop/web/http"`
	lines := map[string][]string{}
	family := ""
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "# TYPE ") {
			family = line
		}
		if strings.Contains(line, from) && !strings.Contains(line, `code=`) {
			for port := range ports {
				lines[family] = append(lines[family], strings.Replace(line, from, fmt.Sprintf(`"shop/s-%d/http"`, port), 1))
			}
		}
	}
	var out strings.Builder
	for _, family := range slices.Sorted(maps.Keys(lines)) {
		out.WriteString(family)
		for _, line := range lines[family] {
			out.WriteString(line)
		}
	}
	return out.String()
}

// series is how many series Prometheus makes of a metric.
func series(m *dto.Metric) int {
	if h := m.GetHistogram(); h != nil {
		return len(h.Bucket) + 2
	}
	return 1
}

// written is what /metrics says of families.
func written(t testing.TB, families []*dto.MetricFamily) string {
	t.Helper()
	var out bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}
