// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Share is which flows Envoy sends while nobody follows: in millionths of all, beside
// those that failed.
type Share uint32

// The shares with a name of their own.
const (
	// ShareFailed is for those that failed alone.
	ShareFailed Share = 0
	// ShareOff is for none, also while somebody follows.
	ShareOff Share = math.MaxUint32
)

// MarshalText writes off, failed, all, or a percentage.
func (s Share) MarshalText() ([]byte, error) {
	switch s {
	case ShareFailed:
		return []byte("failed"), nil
	case ShareOff:
		return []byte("off"), nil
	case All:
		return []byte("all"), nil
	}
	return []byte(strconv.FormatFloat(float64(s)/(All/100), 'f', -1, 64) + "%"), nil
}

// UnmarshalText reads what MarshalText writes.
func (s *Share) UnmarshalText(text []byte) error {
	switch string(text) {
	case "failed":
		*s = ShareFailed
	case "off":
		*s = ShareOff
	case "all":
		*s = All
	default:
		number, percent := strings.CutSuffix(string(text), "%")
		share, err := strconv.ParseFloat(number, 64)
		if !percent || err != nil || !(share > 0 && share <= 100) {
			return fmt.Errorf("%q is no share of flows: want off, failed, all, or a percentage such as 1%%", text)
		}
		*s = Share(math.Round(share * (All / 100)))
	}
	return nil
}
