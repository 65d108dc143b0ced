// SPDX-License-Identifier: Apache-2.0

package columns

import (
	"fmt"
	"slices"
	"strings"
)

// OfNode are the rows that one node has for a table.
type OfNode struct {
	Node string
	Rows [][]Cell
}

// NodeHead is the head of the column of nodes.
const NodeHead = "NODE"

// nodesNamed is how many nodes a cell names before it counts them.
const nodesNamed = 3

// Merge makes one table of those of several nodes, with a column of nodes first. Rows
// that several nodes have alike are one row. The order is that of first appearance.
func Merge(head []string, all []OfNode) Table {
	var order []string
	rows, nodes := map[string][]Cell{}, map[string][]string{}
	for _, one := range all {
		for _, row := range one.Rows {
			key := fmt.Sprint(row)
			if _, is := rows[key]; !is {
				order, rows[key] = append(order, key), row
			}
			if !slices.Contains(nodes[key], one.Node) {
				nodes[key] = append(nodes[key], one.Node)
			}
		}
	}
	t := Table{Head: append([]string{NodeHead}, head...)}
	for _, key := range order {
		t.Add(append([]Cell{{Text: Nodes(nodes[key], len(all))}}, rows[key]...)...)
	}
	return t
}

// Nodes names some nodes of so many.
func Nodes(names []string, total int) string {
	switch {
	case len(names) == total && total > 1:
		return fmt.Sprintf("all %d", total)
	case len(names) > nodesNamed:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:nodesNamed], ","), len(names)-nodesNamed)
	}
	return strings.Join(names, ",")
}
