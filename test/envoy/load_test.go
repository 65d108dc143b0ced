// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is requests to one address, some over connections that are kept, some
// over new ones, until it is stopped.
type load struct {
	quit     chan struct{}
	workers  sync.WaitGroup
	requests atomic.Int64
	mu       sync.Mutex
	failures []string
}

func startLoad(t *testing.T, addresses ...string) *load {
	t.Helper()
	return startLoadFrom(t, &net.Dialer{}, addresses...)
}

// startLoadFrom is startLoad from somewhere else.
func startLoadFrom(t *testing.T, from dialer, addresses ...string) *load {
	t.Helper()
	l := &load{quit: make(chan struct{})}
	for _, address := range addresses {
		for _, fresh := range []bool{true, false} {
			client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: fresh, DialContext: from.DialContext}}
			l.workers.Add(1)
			go func() {
				defer l.workers.Done()
				l.run(client, address)
			}()
		}
	}
	return l
}

func (l *load) run(client *http.Client, address string) {
	// A pause between requests leaves the two cores to what is tested.
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-l.quit:
			return
		case <-tick.C:
		}
		l.requests.Add(1)
		if err := once(client, address); err != nil {
			l.mu.Lock()
			l.failures = append(l.failures, err.Error())
			l.mu.Unlock()
		}
	}
}

func once(client *http.Client, address string) error {
	resp, err := client.Get("http://" + address + "/")
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return nil
}

// stop ends the load and fails the test if any request failed.
func (l *load) stop(t *testing.T) {
	t.Helper()
	close(l.quit)
	l.workers.Wait()
	t.Logf("%d requests, %d failed", l.requests.Load(), len(l.failures))
	if len(l.failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(l.failures), l.requests.Load(), l.failures[0])
	}
	if l.requests.Load() == 0 {
		t.Error("the load made no request")
	}
}
