// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/nodevoy/nodevoy/agent/flow"
	"github.com/nodevoy/nodevoy/cmd/internal/columns"
)

// flowPrinter prints flows that come one after another, also from several streams.
type flowPrinter struct {
	w                         io.Writer
	json, wide, nodes, colors bool

	mu     sync.Mutex
	stream columns.Stream
	begun  bool
}

// node is what is said of the node of a flow, if there may be several.
func (p *flowPrinter) node(name string) string {
	if p.nodes {
		return name
	}
	return ""
}

func (p *flowPrinter) print(flows []nodeFlow) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.json {
		enc := json.NewEncoder(p.w)
		for i := range flows {
			if err := enc.Encode(&flows[i]); err != nil {
				return err
			}
		}
		return nil
	}
	var rows [][]columns.Cell
	if !p.begun {
		p.begun = true
		rows = append(rows, columns.Head(p.head()...))
	}
	for i := range flows {
		rows = append(rows, p.row(&flows[i]))
	}
	return p.stream.Write(p.w, rows, p.colors)
}

func (p *flowPrinter) head() []string {
	head := []string{"TIME"}
	if p.nodes {
		head = append(head, "NODE")
	}
	head = append(head, "FROM", "TO", "BACKEND", "ON", "SEEN BY", "PROTOCOL", "STATUS", "TOOK", "WHAT")
	if p.wide {
		head = append(head, "CLIENT", "FRONTEND", "ADDRESS", "SENT", "RECEIVED", "ATTEMPTS", "REQUEST ID")
	}
	return head
}

func (p *flowPrinter) row(f *nodeFlow) []columns.Cell {
	row := columns.Row(f.Time.Local().Format("15:04:05.000"))
	if p.nodes {
		row = append(row, columns.Row(f.OnNode)...)
	}
	to := f.Service.String()
	if to == "" {
		to = flow.Peer{Address: f.Frontend}.Name()
	}
	took := millis(f.Duration)
	if f.Open {
		took = "open"
	}
	row = append(row, columns.Row(f.Source.Name(), to, f.Backend.Name(), f.Backend.Node, string(f.Origin), f.Protocol)...)
	row = append(row, statusCell(f), columns.Cell{Text: took}, columns.Cell{Text: what(f)})
	if p.wide {
		row = append(row, columns.Row(flow.Peer{Address: f.Source.Address}.Name(), flow.Peer{Address: f.Frontend}.Name(), flow.Peer{Address: f.Backend.Address}.Name(),
			strconv.FormatUint(f.BytesSent, 10), strconv.FormatUint(f.BytesReceived, 10), strconv.Itoa(f.Attempts), f.RequestID)...)
	}
	return row
}

func statusCell(f *nodeFlow) columns.Cell {
	c := columns.Cell{Color: columns.Green}
	switch {
	case f.Status > 0 && strings.EqualFold(f.Protocol, "grpc") && f.GRPCStatus >= 0:
		c.Text = "grpc " + strconv.Itoa(f.GRPCStatus)
	case f.Status > 0:
		c.Text = strconv.Itoa(f.Status)
	case f.Failed():
		c.Text = "failed"
	default:
		c = columns.Cell{}
	}
	if f.Failed() {
		c.Color = columns.Red
	} else if f.Status >= 400 {
		c.Color = columns.Yellow
	}
	return c
}

// what is the request, and what went wrong in words.
func what(f *nodeFlow) string {
	var parts []string
	if f.Method != "" {
		parts = append(parts, f.Method+" "+f.Path)
	}
	for _, flag := range f.Flags {
		if words := flag.Words(); words != "" {
			parts = append(parts, words)
		} else {
			parts = append(parts, string(flag))
		}
	}
	return strings.Join(parts, ": ")
}
