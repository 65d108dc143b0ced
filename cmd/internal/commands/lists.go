// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/cmd/internal/columns"
)

// query is that of a list, for the namespace that was given.
func (s *Site) query() url.Values {
	v := url.Values{}
	if ns := s.Namespace(); ns != "" {
		v.Set("namespace", ns)
	}
	return v
}

func newPods(s *Site) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pods",
		Short: "List pods, whether they are enrolled and redirected, and why",
		Args:  NoArgs,
	}
	o := addOutput(cmd, asWide)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		results, err := askAll(cmd.Context(), s, func(ctx context.Context, a ask.Agent) ([]view.Pod, error) {
			return ask.List[view.Pod](ctx, a, "/v1/pods", s.query())
		})
		if err != nil {
			return err
		}
		wide := o.format == asWide
		return printList(cmd, s, o, results, listing[[]view.Pod]{
			podHead(wide), func(pods *[]view.Pod) [][]columns.Cell { return podRows(*pods, wide) }, "No pods.", false,
		})
	}
	return cmd
}

// listing is how answers become a table.
type listing[T any] struct {
	head []string
	rows func(*T) [][]columns.Cell
	// none is said where there are no rows.
	none string
	// each says that rows which nodes have alike stay apart.
	each bool
}

// table is that of all nodes.
func (l listing[T]) table(of []columns.OfNode, one bool) columns.Table {
	if !one && !l.each {
		return columns.Merge(l.head, of)
	}
	t := columns.Table{Head: l.head}
	if !one {
		t.Head = append([]string{columns.NodeHead}, l.head...)
	}
	for _, node := range of {
		for _, row := range node.Rows {
			if !one {
				row = append(columns.Row(node.Node), row...)
			}
			t.Add(row...)
		}
	}
	return t
}

// printList prints results, and says what became of nodes that have none.
func printList[T any](cmd *cobra.Command, s *Site, o *output, results []ask.Result[T], as listing[T]) error {
	var err error
	if o.people() {
		err = printTable(cmd.OutOrStdout(), as.table(rowsOf(results, as.rows), s.One), as.none)
	} else {
		err = encodeAll(cmd.OutOrStdout(), s, o, results)
	}
	if err != nil {
		return err
	}
	return settle(cmd.ErrOrStderr(), results)
}

func podHead(wide bool) []string {
	head := []string{"NAMESPACE", "POD", "IP", "ENROLLED", "REDIRECTED", "WHY"}
	if wide {
		head = append(head, "NETWORK NAMESPACE")
	}
	return head
}

func podRows(pods []view.Pod, wide bool) [][]columns.Cell {
	var rows [][]columns.Cell
	for _, p := range pods {
		redirected := yesNo(p.Redirected)
		if p.Enrolled && p.NotRedirected != "" {
			redirected.Color = columns.Yellow
		}
		row := append(columns.Row(p.Namespace, p.Name, strings.Join(p.IPs, ",")), yesNo(p.Enrolled), redirected)
		row = append(row, columns.Row(p.Why())...)
		if wide {
			row = append(row, columns.Row(p.Netns)...)
		}
		rows = append(rows, row)
	}
	return rows
}

func newServices(s *Site) *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "services",
		Short: "List Services that pods have called, how their ports are taken, and why",
		Args:  NoArgs,
	}
	o := addOutput(cmd, asWide)
	cmd.Flags().BoolVar(&all, "all", false, "list all Services, not only those in use")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		results, err := askAll(cmd.Context(), s, func(ctx context.Context, a ask.Agent) ([]view.Service, error) {
			query := s.query()
			if !all {
				query.Set("inUse", "true")
			}
			return ask.List[view.Service](ctx, a, "/v1/services", query)
		})
		if err != nil {
			return err
		}
		wide := o.format == asWide
		head := []string{"NAMESPACE", "SERVICE", "PORT", "CLASS", "IN USE", "BACKENDS", "WHY"}
		if wide {
			head = append(head, "ADDRESSES")
		}
		return printList(cmd, s, o, results, listing[[]view.Service]{
			head, func(services *[]view.Service) [][]columns.Cell { return serviceRows(*services, wide) }, "No Service is in use; --all lists the others.", false,
		})
	}
	return cmd
}

func serviceRows(services []view.Service, wide bool) [][]columns.Cell {
	var rows [][]columns.Cell
	for _, one := range services {
		for _, p := range one.Ports {
			class, why := p.Class, p.Why
			if p.Bypassed == len(p.Addresses) && p.Bypassed > 0 {
				class = "-"
			} else if p.Bypassed > 0 {
				why += "; " + strconv.Itoa(p.Bypassed) + " of its addresses are left to kube-proxy"
			}
			backends := columns.Of(strconv.Itoa(p.Backends), columns.Plain)
			if p.Backends == 0 {
				backends.Color = columns.Red
			}
			row := append(columns.Row(one.Namespace, one.Name, p.Label(), class), yesNo(p.InUse), backends, columns.Cell{Text: why})
			if wide {
				row = append(row, columns.Row(strings.Join(p.Addresses, ","))...)
			}
			rows = append(rows, row)
		}
	}
	return rows
}

func newXDS(s *Site) *cobra.Command {
	refused := false
	cmd := &cobra.Command{
		Use:   "xds",
		Short: "List what Envoy has asked for, accepted and refused",
		Args:  NoArgs,
	}
	o := addOutput(cmd, asWide)
	cmd.Flags().BoolVar(&refused, "refused", false, "only what Envoy has refused")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		results, err := askAll(cmd.Context(), s, func(ctx context.Context, a ask.Agent) (view.XDS, error) { return xds(ctx, a, refused) })
		if err != nil {
			return err
		}
		wide := o.format == asWide
		head := []string{"KIND", "NAME", "STATE", "WHY"}
		if wide {
			head = append(head, "VERSION", "ACCEPTED")
		}
		return printList(cmd, s, o, results, listing[view.XDS]{
			head, func(x *view.XDS) [][]columns.Cell { return xdsRows(x, wide) }, "Envoy has asked for nothing.", false,
		})
	}
	return cmd
}

// xds is the whole of it, of all parts.
func xds(ctx context.Context, a ask.Agent, refused bool) (view.XDS, error) {
	query, whole := url.Values{}, view.XDS{}
	if refused {
		query.Set("refused", "true")
	}
	for {
		var part view.XDS
		if err := a.Get(ctx, "/v1/xds", query, &part); err != nil {
			return whole, err
		}
		part.Items = slices.Concat(whole.Items, part.Items)
		if whole = part; whole.Continue == "" {
			return whole, nil
		}
		query.Set("continue", whole.Continue)
	}
}

func xdsRows(x *view.XDS, wide bool) [][]columns.Cell {
	var rows [][]columns.Cell
	for _, r := range x.Items {
		state := columns.Of(r.State, columns.Plain)
		switch r.State {
		case "accepted":
			state.Color = columns.Green
		case "refused":
			state.Color = columns.Red
		case "requested", "sent":
			state.Color = columns.Yellow
		}
		row := append(columns.Row(r.Kind, r.Name), state, columns.Cell{Text: r.Why})
		if wide {
			row = append(row, columns.Row(r.Version, r.Accepted)...)
		}
		rows = append(rows, row)
	}
	return rows
}
