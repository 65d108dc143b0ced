// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/cmd/internal/columns"
)

// The output formats.
const (
	asTable = "table"
	asWide  = "wide"
	asJSON  = "json"
	asYAML  = "yaml"
)

// output is the flag -o of a command.
type output struct {
	format  string
	formats []string
}

// addOutput gives a command the flag, for tables, JSON, YAML and what else it has.
func addOutput(cmd *cobra.Command, more ...string) *output {
	o := &output{format: asTable, formats: append([]string{asTable, asJSON, asYAML}, more...)}
	cmd.Flags().VarP(o, "output", "o", "output format: "+strings.Join(o.formats, ", "))
	complete(cmd, "output", o.formats...)
	return o
}

func (o *output) String() string { return o.format }
func (o *output) Type() string   { return "format" }
func (o *output) Set(s string) error {
	if !slices.Contains(o.formats, s) {
		return fmt.Errorf("want one of %s", strings.Join(o.formats, ", "))
	}
	o.format = s
	return nil
}

// people says whether a table is wanted.
func (o *output) people() bool { return o.format == asTable || o.format == asWide }

// Encode prints a value as JSON or YAML.
func (o *output) encode(w io.Writer, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	if o.format == asYAML {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return fmt.Errorf("write YAML: %w", err)
		}
	} else {
		text = append(text, '\n')
	}
	_, err = w.Write(text)
	return err
}

// answers is what is printed of several nodes.
type answers[T any] struct {
	Nodes []ask.Result[T] `json:"nodes"`
}

// encodeAll prints the answer of the one node, or the results of all.
func encodeAll[T any](w io.Writer, s *Site, o *output, results []ask.Result[T]) error {
	if s.One {
		return o.encode(w, results[0].Answer)
	}
	return o.encode(w, answers[T]{results})
}

// colors says whether a person's terminal shows what is written, and wants colors.
func colors(w io.Writer) bool {
	f, is := w.(*os.File)
	return is && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// rowsOf are the rows for each node that answered.
func rowsOf[T any](results []ask.Result[T], rows func(*T) [][]columns.Cell) []columns.OfNode {
	var all []columns.OfNode
	for _, r := range results {
		if r.Answer != nil {
			all = append(all, columns.OfNode{Node: r.Node, Rows: rows(r.Answer)})
		}
	}
	return all
}

// printTable prints a table; none says that it has no rows.
func printTable(w io.Writer, t columns.Table, none string) error {
	if len(t.Rows) == 0 {
		_, err := fmt.Fprintln(w, none)
		return err
	}
	return t.Write(w, colors(w))
}

func yesNo(b bool) columns.Cell {
	if b {
		return columns.Of("yes", columns.Green)
	}
	return columns.Of("no", columns.Plain)
}
