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
// connections, by NTLM for one. Nor do those of HTTP/1 of two connections of one pod; those
// of one connection do.
func TestSourcesShareNoBackendConnection(t *testing.T) {
	sourceWeb(t, "10.244.0.1:8080", func(address string) string { return address })
	newFixture(t, nodeOf(t,
		service{name: "web", frontend: "10.96.1.10:80", backends: []string{"10.244.0.1:8080"}},
		service{name: "undeclared", frontend: "10.96.3.10:80", backends: []string{"10.244.0.1:8080"}},
	))
	for _, address := range []string{"10.96.1.10:80", "10.96.3.10:80"} {
		for _, version := range []int{1, 2} {
			t.Run(fmt.Sprintf("HTTP %d to %s", version, address), func(t *testing.T) {
				newClient := func(source string) *http.Client {
					transport := &http.Transport{
						Protocols:   &http.Protocols{},
						DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}).DialContext,
					}
					transport.Protocols.SetHTTP1(version == 1)
					transport.Protocols.SetUnencryptedHTTP2(version == 2)
					t.Cleanup(transport.CloseIdleConnections)
					return &http.Client{Transport: transport}
				}
				ask := func(client *http.Client) string {
					t.Helper()
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
				client := newClient("10.244.0.2")
				first, again := ask(client), ask(client)
				if first != again {
					t.Errorf("the requests of one connection use two to the backend, %s and %s", first, again)
				}
				for source, shared := range map[string]bool{"10.244.0.2": version == 2, "10.244.0.3": false} {
					if other := ask(newClient(source)); (other == first) != shared {
						t.Errorf("another connection, of %s, comes from %s to the backend, the first from %s", source, other, first)
					}
				}
			})
		}
	}
}
