// SPDX-License-Identifier: Apache-2.0

// Package dump reads what the kernel lists by netlink, in bounded memory.
package dump

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
)

// ErrTooMuch says that the kernel lists more than anybody needs.
var ErrTooMuch = errors.New("the kernel lists too much")

// attempts is how often a listing is begun that changes interrupt.
const attempts = 10

// Collect sends a request to the kernel and returns the replies. A listing that was
// interrupted by a change, and so may be wrong, is begun anew; if that doesn't help,
// the error is nl.ErrDumpInterrupted. ErrTooMuch when there are more than limit
// bytes: no more than these are ever kept, other than by the request's own
// RetryInterrupted.
func Collect(req *nl.NetlinkRequest, protocol, limit int) ([][]byte, error) {
	var replies [][]byte
	err := error(nl.ErrDumpInterrupted)
	for try := 0; try < attempts && errors.Is(err, nl.ErrDumpInterrupted); try++ {
		replies = nil
		size := 0
		err = req.ExecuteIter(protocol, 0, func(reply []byte) bool {
			if size += len(reply); size > limit {
				return false
			}
			// The reply is part of a buffer that is far larger.
			replies = append(replies, bytes.Clone(reply))
			return true
		})
		if size > limit {
			return nil, fmt.Errorf("%w: more than %d bytes", ErrTooMuch, limit)
		}
	}
	if err != nil {
		return nil, err
	}
	return replies, nil
}
