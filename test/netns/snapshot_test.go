// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"regexp"
	"strings"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// commands are the iptables commands of each backend and family.
func commands() []string {
	return []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"}
}

// command is the one of a backend and family.
func command(b netfilter.Backend, f family.Family) string {
	return map[family.Family]string{family.V4: "iptables-", family.V6: "ip6tables-"}[f] + string(b)
}

// useTables sets up every table of every backend, as a node on which others
// have been has them: what then differs is nodevoy's.
func (w *fixture) useTables() {
	w.t.Helper()
	for _, c := range commands() {
		for _, table := range []string{"raw", "mangle", "nat", "filter"} {
			w.Feed(c+"-restore --noflush", "*"+table+"\n:FOREIGN - [0:0]\n-A FOREIGN -j RETURN\nCOMMIT\n")
		}
	}
	w.Run("ipset create foreign hash:ip")
}

// snapshot is everything in the kernel that redirection could change, as the
// node's own commands show it.
func (w *fixture) snapshot() string {
	w.t.Helper()
	var b strings.Builder
	for _, c := range commands() {
		b.WriteString("== " + c + "\n" + rulesOnly(w.Run(c+"-save")))
	}
	b.WriteString("== ipset\n" + setsOnly(w.Run("ipset save")))
	for _, c := range []string{
		"ip -4 rule", "ip -6 rule", "ip -4 route show table all", "ip -6 route show table all",
		"ip -br address", "ip -4 -br address show dev lo", "nft list tables",
	} {
		b.WriteString("== " + c + "\n" + regexp.MustCompile(` (expires|pref) \S+`).ReplaceAllString(w.Run(c), ""))
	}
	return b.String()
}

// rulesOnly is iptables-save without comments and counters, and without the
// kernel's own chains: which of them nft has depends on who used it, not on
// what is in force.
func rulesOnly(save string) string {
	var b strings.Builder
	for line := range strings.Lines(save) {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ":") && !strings.Contains(line, " - [") {
			continue
		}
		b.WriteString(regexp.MustCompile(`\[\d+:\d+\]`).ReplaceAllString(line, "[0:0]"))
	}
	return b.String()
}

// setsOnly is ipset save without the size that grows with members, and without
// the seconds that members have left.
func setsOnly(save string) string {
	var b strings.Builder
	for line := range strings.Lines(save) {
		line = regexp.MustCompile(` hashsize \d+| bucketsize \d+| initval \S+`).ReplaceAllString(line, "")
		if strings.HasPrefix(line, "add ") {
			line = regexp.MustCompile(` timeout \d+`).ReplaceAllString(line, "")
		}
		b.WriteString(line)
	}
	return b.String()
}

// withoutReasons is rendered text without its comments.
func withoutReasons(text string) string {
	return regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(text, "")
}
