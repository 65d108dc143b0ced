// SPDX-License-Identifier: Apache-2.0

package columns

import (
	"io"
	"strings"
	"unicode/utf8"
)

// maxStreamWidth is how wide a column of a stream grows: one long cell must not push
// those of all later rows to the right.
const maxStreamWidth = 48

// Stream prints rows whose successors are not known yet: columns grow with what comes.
type Stream struct {
	widths []int
}

// Head is a row of column heads.
func Head(texts ...string) []Cell {
	row := Row(texts...)
	for i := range row {
		row[i].Color = Bold
	}
	return row
}

// Write prints some rows, as Table does.
func (s *Stream) Write(w io.Writer, rows [][]Cell, colors bool) error {
	cells := make([][]Cell, 0, len(rows))
	for _, row := range rows {
		cells = append(cells, shown(row))
	}
	for i, width := range widths(cells) {
		if i == len(s.widths) {
			s.widths = append(s.widths, 0)
		}
		s.widths[i] = max(s.widths[i], min(width, maxStreamWidth))
	}
	var out strings.Builder
	for _, row := range cells {
		fit := make([]int, len(row))
		for i, c := range row {
			fit[i] = max(s.widths[i], utf8.RuneCountInString(c.Text))
		}
		line(&out, row, fit, colors)
	}
	_, err := io.WriteString(w, out.String())
	return err
}
