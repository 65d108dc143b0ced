// SPDX-License-Identifier: Apache-2.0

package echo

import (
	"net"
	"slices"
	"time"
)

// Record is one request.
type Record struct {
	// At is when the request was due; Took is from then to its end.
	At   time.Time     `json:"at"`
	Took time.Duration `json:"took"`
	// Fresh says that it opened its connection.
	Fresh bool `json:"fresh,omitempty"`
	// Pod answered, having been called from the address Peer.
	Pod  string `json:"pod,omitempty"`
	Peer string `json:"peer,omitempty"`
	// Relayed says that the connection which reached Pod was not the client's
	// own; known only with Spec.OwnPorts.
	Relayed bool `json:"relayed,omitempty"`
	// Error is empty when the request was answered with success.
	Error string `json:"error,omitempty"`
}

// Result sums up a run.
type Result struct {
	// Requests counts all, Failed those that were not answered with success.
	Requests int `json:"requests"`
	Failed   int `json:"failed"`
	// Connections counts the connections, or gRPC channels, opened.
	Connections int `json:"connections"`
	// Pods and Peers count answers by pod and by the address the pod was
	// called from; Errors counts failures by text.
	Pods   map[string]int `json:"pods"`
	Peers  map[string]int `json:"peers"`
	Errors map[string]int `json:"errors,omitempty"`
	// Relayed counts the answers that came by a connection which wasn't the
	// client's own, with Spec.OwnPorts.
	Relayed int `json:"relayed,omitempty"`
	// First is the latency of the first request; the others are over all
	// that succeeded.
	First time.Duration `json:"first"`
	P50   time.Duration `json:"p50"`
	P99   time.Duration `json:"p99"`
	Max   time.Duration `json:"max"`
	// Elapsed is the length of the run; PerSecond is successes over it.
	Elapsed   time.Duration `json:"elapsed"`
	PerSecond float64       `json:"perSecond"`
	// Outliers are the first of the requests that failed or were slow.
	Outliers []Record `json:"outliers,omitempty"`
}

// maxOutliers is how many requests a result lists.
const maxOutliers = 40

// tally adds up records.
type tally struct {
	result Result
	took   []time.Duration
	slow   time.Duration
}

func newTally(slow time.Duration) *tally {
	return &tally{slow: slow, result: Result{Pods: map[string]int{}, Peers: map[string]int{}, Errors: map[string]int{}}}
}

func (t *tally) add(rec Record) {
	r := &t.result
	if r.Requests == 0 {
		r.First = rec.Took
	}
	r.Requests++
	if rec.Fresh {
		r.Connections++
	}
	if (rec.Error != "" || t.slow > 0 && rec.Took > t.slow) && len(r.Outliers) < maxOutliers {
		r.Outliers = append(r.Outliers, rec)
	}
	if rec.Error != "" {
		r.Failed++
		r.Errors[rec.Error]++
		return
	}
	r.Pods[rec.Pod]++
	r.Peers[rec.Peer]++
	if rec.Relayed {
		r.Relayed++
	}
	t.took = append(t.took, rec.Took)
}

func (t *tally) sum(elapsed time.Duration) Result {
	slices.Sort(t.took)
	r := t.result
	r.P50, r.P99, r.Max = quantile(t.took, 0.50), quantile(t.took, 0.99), quantile(t.took, 1)
	r.Elapsed = elapsed
	r.PerSecond = float64(len(t.took)) / elapsed.Seconds()
	return r
}

// quantile is the smallest value that is not below the fraction q of all
// values, which are sorted; 0 when there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(q*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// host is an IP:port without its port.
func host(addr string) string {
	h, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return h
}
