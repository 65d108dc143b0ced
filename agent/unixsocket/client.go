// SPDX-License-Identifier: Apache-2.0

package unixsocket

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Client is an HTTP client of the process that listens at path, whatever the host in
// its requests. Each request has a connection of its own, and the timeout, 0 for none.
func Client(path string, timeout time.Duration) *http.Client {
	return &http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
}
