// SPDX-License-Identifier: Apache-2.0

package columns

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestColumnsAreAligned(t *testing.T) {
	tab := Table{Head: []string{"POD", "WHY"}}
	tab.Add(Of("größe", Red), Of("a\nb\x1b[2J", Plain))
	tab.Add(Row("x", "")...)
	for _, tt := range []struct {
		colors bool
		want   string
	}{
		{false, "POD    WHY\ngröße  a\\nb\\x1b[2J\nx      -\n"},
		{true, "\x1b[1mPOD\x1b[0m    \x1b[1mWHY\x1b[0m\n\x1b[31mgröße\x1b[0m  a\\nb\\x1b[2J\nx      -\n"},
	} {
		var out strings.Builder
		if err := tab.Write(&out, tt.colors); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, out.String()); diff != "" {
			t.Errorf("colors %v: %s", tt.colors, diff)
		}
	}
}

func TestALineBelowIsInItsColumn(t *testing.T) {
	tab := Table{}
	tab.Add(Of("failed", Plain), Cell{Text: "no ipset", Below: "do: modprobe ip_set"})
	tab.Add(Row("ok", "all")...)
	var out strings.Builder
	if err := tab.Write(&out, false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("failed  no ipset\n        do: modprobe ip_set\nok      all\n", out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestAStreamsColumnsGrow(t *testing.T) {
	var s Stream
	var out strings.Builder
	long := strings.Repeat("x", maxStreamWidth+9)
	for _, rows := range [][][]Cell{{Head("A", "B")}, {Row("a1", "b")}, {Row("a", "b"), Row(long, "b")}, {Row("a", "b")}} {
		if err := s.Write(&out, rows, false); err != nil {
			t.Fatal(err)
		}
	}
	wide := strings.Repeat(" ", maxStreamWidth-1)
	want := "A  B\na1  b\na" + wide + "  b\n" + long + "  b\na" + wide + "  b\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestRowsOfSeveralNodesAreOne(t *testing.T) {
	same, other := Row("shop/web", "http"), Row("shop/web", "tcp")
	tab := Merge([]string{"SERVICE", "CLASS"}, []OfNode{
		{"a", [][]Cell{same}},
		{"b", [][]Cell{Row("shop/db", "tcp"), other}},
		{"c", [][]Cell{same, same}},
	})
	var out strings.Builder
	if err := tab.Write(&out, false); err != nil {
		t.Fatal(err)
	}
	want := "NODE  SERVICE   CLASS\na,c   shop/web  http\nb     shop/db   tcp\nb     shop/web  tcp\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestNodesAreNamedOrCounted(t *testing.T) {
	for _, tt := range []struct {
		names string
		total int
		want  string
	}{
		{"a", 1, "a"}, {"a b", 2, "all 2"}, {"a b", 5, "a,b"}, {"a b c d e", 9, "a,b,c and 2 more"},
	} {
		if got := Nodes(strings.Fields(tt.names), tt.total); got != tt.want {
			t.Errorf("Nodes(%q, %d) = %q, want %q", tt.names, tt.total, got, tt.want)
		}
	}
}
