// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// TestSourcesShareNoBackendConnection: in host mode, too, the requests of two pods
// never use the same connection to a backend, as some servers authenticate
// connections, by NTLM for one. Those of one pod do, also from several connections.
func TestSourcesShareNoBackendConnection(t *testing.T) {
	sourceWeb(t, "10.244.0.1:8080", func(address string) string { return address })
	newFixture(t, nodeOf(t,
		service{name: "web", frontend: "10.96.1.10:80", backends: []string{"10.244.0.1:8080"}},
		service{name: "undeclared", frontend: "10.96.3.10:80", backends: []string{"10.244.0.1:8080"}},
	))
	for _, address := range []string{"10.96.1.10:80", "10.96.3.10:80"} {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("HTTP %d to %s", version, address), func(t *testing.T) {
				ask := func(source string) string {
					t.Helper()
					client := &http.Client{Transport: &http.Transport{
						Protocols:   &http.Protocols{},
						DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}).DialContext,
					}}
					client.Transport.(*http.Transport).Protocols.SetHTTP1(version == 1)
					client.Transport.(*http.Transport).Protocols.SetUnencryptedHTTP2(version == 2)
					// A connection of the client's own for each request.
					defer client.CloseIdleConnections()
					response, err := client.Get("http://" + address + "/")
					if err != nil {
						t.Fatal(err)
					}
					defer func() { _ = response.Body.Close() }()
					text, err := io.ReadAll(response.Body)
					if err != nil {
						t.Fatal(err)
					}
					return string(text)
				}
				// Envoy makes the first connection with the first request.
				first, again, other := ask("10.244.0.2"), ask("10.244.0.2"), ask("10.244.0.3")
				if first != again {
					t.Errorf("the requests of one pod use two connections to the backend, %s and %s", first, again)
				}
				if other == first {
					t.Errorf("two pods share the connection from %s to the backend", first)
				}
			})
		}
	}
}
