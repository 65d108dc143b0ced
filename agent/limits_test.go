// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// TestReadmeListsLimits keeps README's table that of what status shows.
func TestReadmeListsLimits(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	for _, l := range limits(cfg.XDS, cfg.Redirect) {
		row := ""
		for line := range strings.Lines(string(readme)) {
			if strings.HasPrefix(line, "| "+l.What+" | ") {
				row = line
			}
		}
		// README says besides what the chart makes of it.
		cells := strings.Split(row, " | ")
		if len(cells) != 4 || !strings.HasPrefix(cells[1], l.Most) || cells[2] != l.Above {
			t.Errorf("README.md has %q, want | %s | %s | %s |", row, l.What, l.Most, l.Above)
		}
	}
}

// TestNoLimits: what is not limited, by choice or for want of a kernel's help, is said.
func TestNoLimits(t *testing.T) {
	cfg := DefaultConfig()
	cfg.XDS.ClusterMemory, cfg.Redirect.Uncounted = 0, true
	var none []view.Limit
	for _, l := range limits(cfg.XDS, cfg.Redirect) {
		if l.Most == "none" {
			none = append(none, l)
		}
	}
	// Those of rates are off by default.
	if len(none) != 4 {
		t.Errorf("no limit: %v, want it of Services, of connections and of two rates", none)
	}
	cfg.XDS.MaxRequestRate, cfg.Redirect.MaxConnectionRate = 70, 30
	var rates []string
	for _, l := range limits(cfg.XDS, cfg.Redirect) {
		if strings.Contains(l.What, "in a second") {
			rates = append(rates, l.Most)
		}
	}
	if strings.Join(rates, " ") != "30 70" {
		t.Errorf("limits of rates: %q", rates)
	}
	cfg.Redirect.Unmeasured = true
	for _, l := range limits(cfg.XDS, cfg.Redirect) {
		if strings.HasPrefix(l.What, "connections of one pod that are redirected in a second") && l.Most != "none" {
			t.Errorf("the kernel measures no rate, and the limit is %s", l.Most)
		}
	}
}
