// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
)

// TestReadmeListsWhatIsReserved keeps the README's table that of reserved.go.
func TestReadmeListsWhatIsReserved(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), reservedTable()) {
		t.Errorf("README.md lacks this table:\n%s", reservedTable())
	}
}

// reservedTable lists, as a Markdown table, every name and number that nodevoy
// takes on a node when nothing else is configured.
func reservedTable() string {
	cfg := DefaultConfig()
	var b strings.Builder
	b.WriteString("| what | default | setting |\n|---|---|---|\n")
	row := func(what, value, setting string) { fmt.Fprintf(&b, "| %s | %s | %s |\n", what, value, setting) }
	for _, table := range Tables() {
		row("iptables chains in `"+table+"`", chainsIn(table, false), "")
	}
	row("iptables chain in `nat` of each enrolled pod, `pod` mode only", chainsIn("nat", true), "")
	var sets []string
	for _, f := range family.All() {
		sets = append(sets, code(PodsSet(f)), code(FullSet(f)))
		for _, c := range model.Classes() {
			sets = append(sets, code(frontendSet(c, f)))
		}
	}
	row("ipsets (and the same with `-new` while one is replaced); in `pod` mode in each enrolled pod", strings.Join(sets, ", "), "")
	row("addresses on `lo`, `host` mode only", code(cfg.Address4.String())+", "+code(cfg.Address6.String()), "`--listener-address4`, `--listener-address6`")
	ports := fmt.Sprintf("%d, %d, %d", cfg.Ports.TCP, cfg.Ports.HTTP, cfg.Ports.Detect)
	row("ports on those addresses, in `pod` mode on each enrolled pod's `127.0.0.1` and `::1`; a second agent during an update takes them plus 10", ports, "`--listener-port-tcp`, `-http`, `-detect`")
	row("packet mark, `tproxy` and `pod` mode only", code(fmt.Sprintf("%#x/%#x", cfg.Mark, cfg.Mark)), "`--mark`")
	row("routing table and priority of its rule, `tproxy` only", fmt.Sprint(cfg.Table), "`--route-table`")
	return b.String()
}

// chainsIn lists our chains of a table, on the host or in pods.
func chainsIn(table string, inPod bool) string {
	var names []string
	for _, h := range Hooks() {
		if h.Table == table && h.InPod == inPod && !slices.Contains(names, code(h.Chain)) {
			names = append(names, code(h.Chain))
		}
	}
	return strings.Join(names, ", ")
}

func code(s string) string { return "`" + s + "`" }
