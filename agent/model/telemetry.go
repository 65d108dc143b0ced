// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The annotations by which a Namespace chooses what of its pods' calls is logged and
// traced.
const (
	AccessLogAnnotation = "nodevoy.io/access-log"
	TracingAnnotation   = "nodevoy.io/tracing"
)

// Whole is a Share of everything.
const Whole Share = 1_000_000

// Share is a part of all requests, in millionths.
type Share uint32

// String is the share in percent, as it is written.
func (s Share) String() string {
	return strconv.FormatFloat(float64(s)/1e4, 'f', -1, 64) + "%"
}

// MarshalText writes the share as flags do.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a percentage of at most four decimals.
func (s *Share) UnmarshalText(text []byte) error {
	number, percent := strings.CutSuffix(string(text), "%")
	value, err := strconv.ParseFloat(number, 64)
	if !percent || err != nil || strings.Trim(number, digits+".") != "" || value > 100 {
		return fmt.Errorf("%q is no share: want a percentage from 0%% to 100%%, such as 0.5%%", text)
	}
	millionths := value * 1e4
	if rounded := math.Round(millionths); math.Abs(millionths-rounded) < 1e-6 {
		*s = Share(rounded)
		return nil
	}
	return fmt.Errorf("%q is no share: want at most four decimals", text)
}

// LogFilter says which requests and connections are logged: what any of its fields
// selects. The zero value selects none.
type LogFilter struct {
	// Errors selects those that failed.
	Errors bool
	// Slower selects those that took at least as long; 0 none.
	Slower time.Duration
	// Sample is the share of all that is selected at random.
	Sample Share
}

// LogAll selects everything.
func LogAll() LogFilter { return LogFilter{Sample: Whole} }

// MaxSlower is the largest LogFilter.Slower.
const MaxSlower = 24 * time.Hour

// String is the filter as it is written.
func (f LogFilter) String() string {
	switch f {
	case LogFilter{}:
		return "off"
	case LogAll():
		return "all"
	}
	var words []string
	if f.Errors {
		words = append(words, "errors")
	}
	if f.Slower > 0 {
		words = append(words, "slower="+f.Slower.String())
	}
	if f.Sample > 0 {
		words = append(words, "sample="+f.Sample.String())
	}
	return strings.Join(words, ",")
}

// MarshalText writes the filter as flags do.
func (f LogFilter) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads all, off, or a list of errors, slower=DURATION and sample=SHARE,
// each once.
func (f *LogFilter) UnmarshalText(text []byte) error {
	switch string(text) {
	case "all":
		*f = LogAll()
		return nil
	case "off":
		*f = LogFilter{}
		return nil
	}
	read, seen := LogFilter{}, map[string]bool{}
	for word := range strings.SplitSeq(string(text), ",") {
		key, value, valued := strings.Cut(strings.TrimSpace(word), "=")
		if seen[key] {
			return fmt.Errorf("%q says %s twice", text, key)
		}
		seen[key] = true
		var err error
		switch {
		case key == "errors" && !valued:
			read.Errors = true
		case key == "slower" && valued:
			read.Slower, err = parseSlower(value)
		case key == "sample" && valued:
			err = read.Sample.UnmarshalText([]byte(value))
		default:
			err = errors.New("want all, off, or a list of errors, slower=DURATION and sample=PERCENTAGE")
		}
		if err != nil {
			return fmt.Errorf("%q is no filter of the access log: %w", text, err)
		}
	}
	*f = read
	return nil
}

// parseSlower reads a duration of whole milliseconds, which Envoy compares.
func parseSlower(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Millisecond || d > MaxSlower || d%time.Millisecond != 0 {
		return 0, fmt.Errorf("%q: want a duration from 1ms to %s, in whole milliseconds", text, MaxSlower)
	}
	return d, nil
}

// Telemetry is what a Namespace says about the calls of its pods; nil where it leaves
// that to the node.
type Telemetry struct {
	AccessLog *LogFilter
	Tracing   *Share
}

// telemetry reads the annotations of all namespaces, and returns what those say that
// say anything.
func telemetry(namespaces []*corev1.Namespace, opts Options, p *problems) map[string]Telemetry {
	out := map[string]Telemetry{}
	for _, ns := range namespaces {
		if ns == nil {
			continue
		}
		var t Telemetry
		if log := new(LogFilter); readAnnotation(ns, AccessLogAnnotation, log, opts, p) {
			t.AccessLog = log
		}
		if share := new(Share); readAnnotation(ns, TracingAnnotation, share, opts, p) {
			t.Tracing = share
		}
		if t != (Telemetry{}) {
			out[ns.Name] = t
		}
	}
	return out
}

// readAnnotation reads one annotation of a Namespace; false if it isn't set or counts for
// nothing.
func readAnnotation(ns *corev1.Namespace, key string, into interface{ UnmarshalText([]byte) error }, opts Options, p *problems) bool {
	text, set := ns.Annotations[key]
	if !set {
		return false
	}
	detail := ""
	switch err := into.UnmarshalText([]byte(text)); {
	case err != nil:
		detail = err.Error() + "; treated as not set"
	case opts.HostMode:
		detail = "has no effect on nodes in host mode, where pods share Envoy's listeners"
	case !opts.TelemetryAnnotations:
		detail = "has no effect without the agent's --telemetry-annotations"
	default:
		return true
	}
	p.add(kindNamespace, &ns.ObjectMeta, "metadata.annotations["+key+"]", detail)
	return false
}
