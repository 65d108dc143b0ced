// SPDX-License-Identifier: Apache-2.0

// Package columns prints tables for people: columns as wide as their widest cell, colours
// where the output is a terminal.
package columns

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/nodevoy/nodevoy/agent/debug/table"
)

// Color is how a cell is to stand out.
type Color string

// The colors, as terminals take them.
const (
	Plain  Color = ""
	Bold   Color = "1"
	Dim    Color = "2"
	Red    Color = "31"
	Green  Color = "32"
	Yellow Color = "33"
)

// Cell is one cell.
type Cell struct {
	Text  string
	Color Color
	// Below is on a line of its own below the cell's, if it isn't empty.
	Below string
}

// Row makes cells of plain texts.
func Row(texts ...string) []Cell {
	cells := make([]Cell, 0, len(texts))
	for _, text := range texts {
		cells = append(cells, Cell{Text: text})
	}
	return cells
}

// Of is a cell that stands out.
func Of(text string, color Color) Cell { return Cell{Text: text, Color: color} }

// Table is a head and rows.
type Table struct {
	Head []string
	Rows [][]Cell
}

// Add adds a row.
func (t *Table) Add(cells ...Cell) { t.Rows = append(t.Rows, cells) }

// gap is between columns.
const gap = "  "

// Write prints the table. What others wrote is escaped, so that it can neither make a
// line or column of its own nor command a terminal. An empty cell is a dash.
func (t *Table) Write(w io.Writer, colors bool) error {
	rows := make([][]Cell, 0, len(t.Rows)+1)
	if len(t.Head) > 0 {
		head := Row(t.Head...)
		for i := range head {
			head[i].Color = Bold
		}
		rows = append(rows, head)
	}
	for _, row := range t.Rows {
		rows = append(rows, shown(row))
	}
	var out strings.Builder
	widths := widths(rows)
	for _, row := range rows {
		line(&out, row, widths, colors)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func shown(row []Cell) []Cell {
	cells := make([]Cell, 0, len(row))
	for _, c := range row {
		if c.Text = Printable(c.Text); c.Text == "" {
			c.Text = "-"
		}
		c.Below = Printable(c.Below)
		cells = append(cells, c)
	}
	return cells
}

func widths(rows [][]Cell) []int {
	var all []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(all) {
				all = append(all, 0)
			}
			all[i] = max(all[i], utf8.RuneCountInString(c.Text))
		}
	}
	return all
}

// line has no blanks at its end.
func line(out *strings.Builder, row []Cell, widths []int, colors bool) {
	for i, c := range row {
		out.WriteString(Paint(c.Text, c.Color, colors))
		if i < len(row)-1 {
			out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.Text)))
			out.WriteString(gap)
		}
	}
	out.WriteByte('\n')
	column := 0
	for i, c := range row {
		if c.Below != "" {
			out.WriteString(strings.Repeat(" ", column) + c.Below + "\n")
		}
		if i < len(row)-1 {
			column += widths[i] + len(gap)
		}
	}
}

// Printable escapes what others wrote, so that it can't command a terminal.
func Printable(s string) string { return table.Printable(s) }

// Paint gives a text a color, if colors are wanted.
func Paint(text string, color Color, colors bool) string {
	if !colors || color == Plain {
		return text
	}
	return fmt.Sprintf("\x1b[%sm%s\x1b[0m", string(color), text)
}
