// SPDX-License-Identifier: Apache-2.0

package kernelflow

import (
	"fmt"
	"strconv"
)

// Rate is how many connections are taken from the kernel in a second at most; beyond it, a
// share of them. 0 is for none.
type Rate int

// DefaultRate costs a few thousandths of a processor at most.
const DefaultRate Rate = 500

// maxRate is what costs about a tenth of a processor.
const maxRate = 10_000

const off = "off"

// MarshalText is the number, or off.
func (r Rate) MarshalText() ([]byte, error) {
	if r == 0 {
		return []byte(off), nil
	}
	return strconv.AppendInt(nil, int64(r), 10), nil
}

// UnmarshalText reads it.
func (r *Rate) UnmarshalText(text []byte) error {
	if string(text) == off {
		*r = 0
		return nil
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 || n > maxRate {
		return fmt.Errorf("%q: want off, or a number from 1 to %d", text, maxRate)
	}
	*r = Rate(n)
	return nil
}
