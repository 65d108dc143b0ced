// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"net/netip"
	"testing"
)

func TestClusterNames(t *testing.T) {
	for name, want := range map[string]clusterName{
		"HTTP/1.1 10.96.0.10:80":       {frontend: netip.MustParseAddrPort("10.96.0.10:80"), form: formHTTP1},
		"HTTP/1.0 10.96.0.10:80":       {frontend: netip.MustParseAddrPort("10.96.0.10:80"), form: formHTTP10},
		"HTTP/2 [fd00::1]:80":          {frontend: netip.MustParseAddrPort("[fd00::1]:80"), form: formHTTP2},
		"tcp 10.96.0.10:80":            {frontend: netip.MustParseAddrPort("10.96.0.10:80"), form: formTCP},
		"tls [fd00::1]:443":            {frontend: netip.MustParseAddrPort("[fd00::1]:443"), form: formTLS},
		"http HTTP/1.1 10.96.0.10:80":  {frontend: netip.MustParseAddrPort("10.96.0.10:80"), form: formAbsolute},
		"http HTTP/1.0 [fd00::1]:8080": {frontend: netip.MustParseAddrPort("[fd00::1]:8080"), form: formAbsolute10},
	} {
		if got, ok := parseClusterName(name); !ok || got != want {
			t.Errorf("%q is read as %+v, %v; want %+v", name, got, ok, want)
		}
		if got := want.String(); got != name {
			t.Errorf("%+v is written as %q, want %q", want, got, name)
		}
	}
	for _, name := range []string{
		"", "none", "xds", "10.96.0.10:80", "tcp ", "tcp 10.96.0.10:", "tcp 10.96.0.10:080", "tcp 010.96.0.10:80", "tcp 10.96.0.10:65536", "HTTP/3 10.96.0.10:80",
		"tcp fd00::1:80", "tcp [FD00::1]:80", "tcp [fd00:0::1]:80", " tcp 10.96.0.10:80", "tcp 10.96.0.10", "tcp tcp 10.96.0.10:80", "tls  10.96.0.10:80", "http HTTP/1.1 ", "http HTTP/2 10.96.0.10:80", "https HTTP/1.1 10.96.0.10:80",
	} {
		if got, ok := parseClusterName(name); ok {
			t.Errorf("%q is read as %+v, want it refused", name, got)
		}
	}
}

// FuzzClusterName: what is read is written the same, so that no two names
// stand for one frontend.
func FuzzClusterName(f *testing.F) {
	f.Add("HTTP/2 10.96.0.10:80")
	f.Add("http HTTP/1.1 [fd00::1]:80")
	f.Fuzz(func(t *testing.T, name string) {
		if n, ok := parseClusterName(name); ok && n.String() != name {
			t.Errorf("%q is read as %+v, which is written %q", name, n, n)
		}
	})
}
