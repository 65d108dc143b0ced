// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/debug/table"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/cmd/internal/columns"
)

func newStatus(s *Site) *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what agents redirect, and why",
		Args:  NoArgs,
	}
	o := addOutput(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "list all frontends, not only those in use, and the limits")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		results, err := askAll(cmd.Context(), s, func(ctx context.Context, a ask.Agent) (view.Status, error) {
			return status(ctx, a, all, !s.One && o.people())
		})
		if err != nil {
			return err
		}
		if !o.people() || !s.One {
			return printList(cmd, s, o, results, listing[view.Status]{
				[]string{"STATE", "MODE", "ENROLLED", "REDIRECTED", "ENVOY", "KERNEL", "WHY"}, statusRow, "No agent answers.", true,
			})
		}
		return table.Status(cmd.OutOrStdout(), results[0].Answer, s.Now())
	}
	return cmd
}

// status is the whole of it, or only the summary where that is all that is shown.
func status(ctx context.Context, a ask.Agent, all, brief bool) (view.Status, error) {
	if !brief {
		return a.Status(ctx, all)
	}
	var v view.Status
	err := a.Get(ctx, "/v1/summary", nil, &v.Summary)
	return v, err
}

// statusRow is a node in a line.
func statusRow(v *view.Status) [][]columns.Cell {
	state := columns.Of(v.Phase, columns.Green)
	why := v.Reason
	if v.NotReady != "" {
		state.Color, why = columns.Yellow, v.NotReady
	}
	if v.Stuck != "" {
		state, why = columns.Of("stuck", columns.Red), v.Stuck
	}
	envoy := columns.Of(v.Envoy.Version, columns.Green)
	if !v.Envoy.Connected {
		envoy = columns.Of("not connected", columns.Red)
	} else if v.Envoy.ProbeError != "" {
		envoy = columns.Of("does not answer", columns.Red)
	}
	kernel := columns.Of(fmt.Sprintf("%d rules", v.Redirect.Rules), columns.Plain)
	if v.Redirect.Error != "" {
		kernel = columns.Of("failing", columns.Red)
	}
	return [][]columns.Cell{append([]columns.Cell{state}, append(
		columns.Row(v.Redirect.Mode, fmt.Sprint(v.PodCount.Enrolled), fmt.Sprint(v.PodCount.Redirected)), envoy, kernel, columns.Cell{Text: why})...)}
}

// say prints a line for a person.
func say(w io.Writer, format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
