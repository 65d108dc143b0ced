// SPDX-License-Identifier: Apache-2.0

package debug

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

const (
	// maxRequests, maxHeavy and maxFollowers are how many requests are served at a time
	// on each listener: all but streams, those that have others work for them, and streams.
	maxRequests, maxHeavy, maxFollowers = 32, 2, 16
	// answerTimeout is how long a client may take to read an answer, and heavyTimeout the
	// same of those that others work for.
	answerTimeout, heavyTimeout = 30 * time.Second, 3 * time.Minute
)

// slots are how many may do something at a time.
type slots chan struct{}

// take takes one, and says whether there was one.
func (s slots) take() bool {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s slots) release() { <-s }

// guard keeps other websites out: a page of one that a person's browser has open
// alongside may send requests here, under a name of its own that leads here (DNS
// rebinding), or from another origin.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'")
		switch {
		case !ownHost(r.Host):
			fail(w, http.StatusForbidden, errors.New("the Host header is not localhost or a loopback address"))
		case !ownOrigin(r):
			fail(w, http.StatusForbidden, errors.New("requests from other origins are not answered"))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// ownHost says whether a Host header leads here whoever resolves it.
func ownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// ownOrigin says whether a request is not one that a page of another origin made. A
// person who follows a link from there only looks.
func ownOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		from, err := url.Parse(origin)
		if err != nil || from.Host != r.Host {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return true
	}
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}
