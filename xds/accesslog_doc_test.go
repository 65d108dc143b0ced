// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/model"
)

// TestAccessLogPage: the page has the names of all columns, in their order, and the
// commands that a format may have, and no others.
func TestAccessLogPage(t *testing.T) {
	text, err := os.ReadFile("accesslog.md")
	if err != nil {
		t.Fatal(err)
	}
	_, page, found := strings.Cut(string(text), "### Names\n")
	names, page, more := strings.Cut(page, "### Format\n")
	format, _, most := strings.Cut(page, "### Filter\n")
	if !found || !more || !most {
		t.Fatal("the page has other sections")
	}
	var got, want []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (.+) \\|$").FindAllStringSubmatch(names, -1) {
		got = append(got, row[1]+map[bool]string{true: " (names only)"}[strings.HasSuffix(row[2], "(names only)")])
	}
	for _, c := range columns(Config{}, ListenerSpec{}, true) {
		want = append(want, c.name+map[bool]string{true: " (names only)"}[c.named])
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	var commands []string
	for _, m := range regexp.MustCompile("`%([A-Z_]+)[^%`]*%`").FindAllStringSubmatch(format, -1) {
		commands = append(commands, m[1])
	}
	slices.Sort(commands)
	if diff := cmp.Diff(sortedKeys(logCommands()), commands); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}

func TestLogFormat(t *testing.T) {
	for _, good := range append(LogExamples(), "", "plain", "100%%", "%REQ(X-A?:PATH):100% %NODEVOY(source_pod)%", "%START_TIME(%s.%3f)%", "a\tb é") {
		var f LogFormat
		if err := f.UnmarshalText([]byte(good)); err != nil || string(f) != good {
			t.Errorf("%q: %q, %v", good, f, err)
		}
	}
	for bad, want := range map[string]string{
		"%":                              "no command begins",
		"%%%":                            "no command begins",
		"50% of":                         "no command begins",
		"%duration%":                     "no command begins",
		"%REQ%":                          "needs an argument",
		"%REQ()%":                        "no argument of it",
		"%REQ(X Y)%":                     "no argument of it",
		"%REQ(X":                         "no command begins",
		"%REQ(X):y%":                     "no command begins",
		"%REQ(X):99999%":                 "no command begins",
		"%DURATION(x)%":                  "no argument of it",
		"%DURATION:3%":                   "can't be cut",
		"%COMMON_DURATION%":              "needs an argument",
		"%COMMON_DURATION(A:B:ms)%":      "no argument of it",
		"%GRPC_STATUS(X)%":               "no argument of it",
		"%NODEVOY(nothing)%":             "no column",
		"%NODEVOY(Time)%":                "no argument of it",
		"%FILTER_STATE(x:PLAIN)%":        "unknown command",
		"%DYNAMIC_METADATA(x:y)%":        "unknown command",
		"%UPSTREAM_METADATA(nodevoy:x)%": "unknown command",
		"%ENVIRONMENT(PATH)%":            "unknown command",
		"a\nb":                           "one line",
		"a\x00":                          "one line",
		"\xff":                           "one line",
	} {
		f := LogFormat("kept")
		if err := f.UnmarshalText([]byte(bad)); err == nil || !strings.Contains(err.Error(), want) || f != "kept" {
			t.Errorf("%q: %v, %q; want an error with %q", bad, err, f, want)
		}
	}
	line := LogFormat("%NODEVOY(source_pod)% %NODEVOY(code)% %PROTOCOL% 1%%").line(columns(podConfig(), ListenerSpec{Target: model.PodTarget{Namespace: "shop", Pod: "%x"}}, false))
	if want := "shop/%%x - %PROTOCOL% 1%%\n"; line != want {
		t.Errorf("line %q, want %q", line, want)
	}
}

// FuzzLogFormat: what is accepted has only known commands once it is a line.
func FuzzLogFormat(f *testing.F) {
	for _, seed := range append(LogExamples(), "%%", "%REQ(%A%)%", "%START_TIME(%%)%", "%%%PROTOCOL%%%") {
		f.Add(seed)
	}
	whole := regexp.MustCompile(`^([^%\n]|%%|%[A-Z_]+(\([^()\n]*\))?(:\d+)?%)*\n$`)
	f.Fuzz(func(t *testing.T, text string) {
		var format LogFormat
		if format.UnmarshalText([]byte(text)) != nil || format == "" {
			return
		}
		if line := format.line(columns(testConfig(), ListenerSpec{}, true)); !whole.MatchString(line) {
			t.Errorf("%q becomes %q", text, line)
		}
	})
}
