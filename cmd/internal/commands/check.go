// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/check"
	"github.com/nodevoy/nodevoy/cmd/internal/columns"
)

func newCheck(s *Site) *cobra.Command {
	quiet := false
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check what nodes have, before and after an install",
		Long: "Check what nodes have, before and after an install: which mode a node takes and why, what is missing, and\n" +
			"what to do. The exit code is 1 if a line says failed.",
		Args: NoArgs,
	}
	o := addOutput(cmd)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "leave out lines that are ok")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		results, err := s.Check(cmd.Context())
		if err != nil {
			return err
		}
		if s.One && results[0].Err != nil {
			return results[0].Err
		}
		if o.people() {
			err = printCheck(cmd.OutOrStdout(), s, results, quiet)
		} else {
			err = encodeAll(cmd.OutOrStdout(), s, o, results)
		}
		if err != nil {
			return err
		}
		for _, r := range results {
			if r.Answer != nil && r.Answer.Worst() == check.Failed {
				return errors.Join(FailedError{fmt.Errorf("%s failed the check", r.Node), ExitFailed}, settle(cmd.ErrOrStderr(), results))
			}
		}
		return settle(cmd.ErrOrStderr(), results)
	}
	return cmd
}

// levelCell is a level with its color.
func levelCell(l check.Level) columns.Cell {
	color := columns.Green
	switch l {
	case check.Failed:
		color = columns.Red
	case check.Warning:
		color = columns.Yellow
	}
	return columns.Of(string(l), color)
}

// printCheck prints the lines, those that several nodes have alike once.
func printCheck(w io.Writer, s *Site, results []ask.Result[check.Report], quiet bool) error {
	rows := func(r *check.Report) [][]columns.Cell {
		var rows [][]columns.Cell
		for _, l := range r.Lines {
			if quiet && l.Level == check.OK {
				continue
			}
			found := columns.Cell{Text: l.Text}
			if l.Do != "" {
				found.Below = "to do: " + l.Do
			}
			rows = append(rows, []columns.Cell{levelCell(l.Level), {Text: l.Topic}, found})
		}
		return rows
	}
	as := listing[check.Report]{[]string{"RESULT", "ABOUT", "FOUND"}, rows, "All is ok.", false}
	return printTable(w, as.table(rowsOf(results, rows), s.One), as.none)
}
