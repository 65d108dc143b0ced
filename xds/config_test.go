// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
)

// testConfig is a whole configuration, as an agent makes it.
func testConfig() Config {
	cfg := Default()
	cfg.NodeID = "node-a"
	cfg.Address4 = netip.MustParseAddr("169.254.64.15")
	cfg.Address6 = netip.MustParseAddr("fd6e:6f64:6576:6f79::15")
	cfg.Ports = model.Ports{TCP: 23721, HTTP: 23722, Detect: 23723}
	return cfg
}

func TestConfigValidate(t *testing.T) {
	if err := testConfig().Validate(); err != nil {
		t.Fatalf("a good configuration: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no node id":           {func(c *Config) { c.NodeID = "" }, "node id: empty"},
		"no socket":            {func(c *Config) { c.Socket = "" }, `xds socket ""`},
		"relative socket":      {func(c *Config) { c.AdminSocket = "a.sock" }, `admin socket "a.sock"`},
		"long socket":          {func(c *Config) { c.Socket = "/" + strings.Repeat("x", 100) }, "at most"},
		"no address":           {func(c *Config) { c.Address4, c.Address6 = netip.Addr{}, netip.Addr{} }, "neither an IPv4 nor an IPv6"},
		"families mixed up":    {func(c *Config) { c.Address4 = c.Address6 }, "not IPv4"},
		"mapped address":       {func(c *Config) { c.Address6 = netip.MustParseAddr("::ffff:1.2.3.4") }, "not a plain IPv6"},
		"zone":                 {func(c *Config) { c.Address6 = netip.MustParseAddr("fe80::1%eth0") }, "not a plain IPv6"},
		"every address":        {func(c *Config) { c.Address4 = netip.IPv4Unspecified() }, "want one address"},
		"no port":              {func(c *Config) { c.Ports.Detect = 0 }, "port of the detect listener: 0"},
		"one port for two":     {func(c *Config) { c.Ports.TCP = c.Ports.HTTP }, "also that of http"},
		"unknown access log":   {func(c *Config) { c.AccessLog = "xml" }, `access log "xml"`},
		"log format":           {func(c *Config) { c.AccessLogFormat = "%X%" }, `--access-log-format: unknown command "X"`},
		"format of JSON":       {func(c *Config) { c.AccessLog, c.AccessLogFormat = AccessLogJSON, "x" }, "only with --access-log=text"},
		"relative log":         {func(c *Config) { c.AccessLogFile = "a.log" }, `--access-log-file "a.log"`},
		"file of no log":       {func(c *Config) { c.AccessLog, c.AccessLogFile = AccessLogOff, "/a.log" }, "--access-log-file: not with"},
		"log filter":           {func(c *Config) { c.AccessLogFilter.Sample = model.Whole + 1 }, "--access-log-filter"},
		"no collector's port":  {func(c *Config) { c.OTLPEndpoint = "otel" }, `--otlp-endpoint "otel"`},
		"no collector":         {func(c *Config) { c.Tracing = 1 }, "--tracing: needs --otlp-endpoint"},
		"no collector of logs": {func(c *Config) { c.AccessLogOTLP = true }, "--access-log-otlp: needs --otlp-endpoint"},
		"no timeout":           {func(c *Config) { c.DiscoveryTimeout = 0 }, "discovery timeout"},
		"negative timeout":     {func(c *Config) { c.ConnectTimeout = -time.Second }, "connect timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig()
			c.change(&cfg)
			if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
	// Everything that is wrong is said at once.
	err := Config{}.Validate()
	for _, want := range []string{"node id", "xds socket", "admin socket", "listener addresses", "port of the tcp", "access log", "detect timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the empty configuration: %v, want also %q", err, want)
		}
	}
}
