// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/xds"
)

// TestBootstrapIsAccepted runs Envoy's own validation on what is printed for
// it, and finds nothing in it that Envoy warns of.
func TestBootstrapIsAccepted(t *testing.T) {
	text, err := xds.Bootstrap(testConfig("/run"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(os.Getenv(envoyVar), "--mode", "validate", "-l", "warning", "-c", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "warning") {
		t.Fatalf("envoy --mode validate: %v:\n%s", err, out)
	}
}

// TestEveryConfigurationIsAcked has Envoy accept listeners and routes in each
// form they come in.
func TestEveryConfigurationIsAcked(t *testing.T) {
	for name, change := range map[string]func(*xds.Config){
		"dnat":      func(*xds.Config) {},
		"tproxy":    func(c *xds.Config) { c.Transparent = true },
		"IPv4 only": func(c *xds.Config) { c.Address6 = netip.Addr{} },
		"json log":  func(c *xds.Config) { c.AccessLog = xds.AccessLogJSON },
		"all telemetry": func(c *xds.Config) {
			c.AccessLogFilter.Errors, c.AccessLogFilter.Sample, c.AccessLogFilter.Slower = true, 1, time.Second
			c.OTLPEndpoint, c.AccessLogOTLP, c.Tracing = "[::1]:4317", true, 1
		},
		"no log": func(c *xds.Config) { c.AccessLog = xds.AccessLogOff },
	} {
		t.Run(name, func(t *testing.T) {
			r := newFixtureWith(t, nodeOf(t), setup{change: change})
			if st := r.server.Status(); st.NackCount != 0 {
				t.Fatalf("Envoy refused: %+v", st.Nacks)
			}
		})
	}
}

// TestSocketsAreForTheirOwner looks at the modes of all sockets.
func TestSocketsAreForTheirOwner(t *testing.T) {
	r := newFixture(t, nodeOf(t))
	for _, path := range []string{r.cfg.Socket, r.cfg.AdminSocket, r.cfg.HealthSocket} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode(); got != os.ModeSocket|0o600 {
			t.Errorf("%s has mode %v, want a socket for its owner only", path, got)
		}
	}
}
