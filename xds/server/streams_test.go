// SPDX-License-Identifier: Apache-2.0

package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/xds"
	"github.com/nodevoy/nodevoy/xds/xdstest"
)

// TestStreams: of each Envoy, what it asked for by name and what it was sent unasked, and
// what became of each.
func TestStreams(t *testing.T) {
	s, err := New(testConfig(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	services, names := webs(2)
	s.Publish(xdstest.Node(services...), nil)
	e := newEnvoy(t, s, "cluster "+names[1])
	e.ask(xds.KindListener)
	e.ask(xds.KindCluster, names[0], names[1], "HTTP/1.1 10.99.99.99:80")
	newEnvoy(t, s)
	streams := s.Streams()
	if len(streams) != 2 || streams[0].Since.After(streams[1].Since) || len(streams[1].Resources) != 0 {
		t.Fatalf("streams %+v", streams)
	}
	var got []string
	for _, r := range streams[0].Resources {
		if r.Kind == xds.KindListener && (!r.Answered || r.Refused != "" || r.Sent == "" || r.Accepted != r.Sent) {
			t.Errorf("listener %+v", r)
		}
		if r.Kind == xds.KindCluster {
			got = append(got, fmt.Sprintf("%s sent %v accepted %v answered %v refused %q at %v", r.Name, r.Sent != "", r.Accepted != "", r.Answered, r.Refused, !r.RefusedAt.IsZero()))
		}
	}
	slices.Sort(got)
	want := []string{
		names[0] + ` sent true accepted true answered true refused "" at false`,
		names[1] + ` sent true accepted false answered true refused "no good" at true`,
		`HTTP/1.1 10.99.99.99:80 sent false accepted false answered true refused "" at false`,
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
