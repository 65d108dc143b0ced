// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/nodevoy/nodevoy/agent/unixsocket"
)

// Fetch returns the view of the agent at this unix socket; all is for every
// frontend, not only those in use.
func Fetch(ctx context.Context, socket string, all bool) (v View, err error) {
	url := "http://agent/status"
	if all {
		url += "?all"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return View{}, fmt.Errorf("make the status request: %w", err)
	}
	resp, err := unixsocket.Client(socket, 0).Do(req)
	if err != nil {
		return View{}, fmt.Errorf("request status of the agent at %s: %w", socket, err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return View{}, fmt.Errorf("request status of the agent at %s: %s", socket, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		return View{}, fmt.Errorf("read the agent's answer: %w", err)
	}
	return v, nil
}
