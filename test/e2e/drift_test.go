// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// repairLimit is within what time damage is to be mended.
const repairLimit = 5 * time.Second

// TestDrift damages what nodevoy put into the kernel in every way seen on
// nodes, under load, and wants it as it was within 5 s.
func TestDrift(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			w := newWorld(t, v)
			w.start(t)
			want := w.kernel(t)
			loads := w.startTraffic(t)
			var lost []window
			for _, d := range w.damages() {
				lost = append(lost, w.damage(t, d, want))
				w.untilPath(t, repairLimit, true)
			}
			w.checkLosses(t, loads, lost)
			if s := must(w.node.Status(limit(t)))(t); s.Redirect.DriftRepaired < len(w.damages()) {
				t.Errorf("the agent counts %d repairs, want at least %d", s.Redirect.DriftRepaired, len(w.damages()))
			}
		})
	}
}

// damage is a change to the kernel that nodevoy has not made.
type damage struct {
	what string
	// script is for a shell on the node, with iptables in $ipt4 and $ipt6.
	script string
}

func (w *world) damages() []damage {
	out := []damage{
		{"our chains were flushed", `
for save in $ipt4 $ipt6; do
  for table in raw mangle nat filter; do
    for chain in $($save-save -t $table | sed -n 's/^:\(NODEVOY[^ ]*\).*/\1/p'); do $save -w -t $table -F $chain; done
  done
done`},
		{"our jumps were deleted", `
for save in $ipt4 $ipt6; do
  for table in raw mangle nat filter; do
    $save-save -t $table | sed -n 's/^-A \(.* -j NODEVOY-[^ ]*\)$/-D \1/p' | grep -v '^-D NODEVOY' | while read -r rule; do $save -w -t $table $rule; done
  done
done`},
		{"our sets were emptied", `
for set in $(ipset list -n | grep nodevoy); do ipset flush $set; done`},
		{"others' rules were put before our jumps", `
for save in $ipt4 $ipt6; do
  for table in mangle nat; do
    if $save-save -t $table | grep -q '^-A PREROUTING.*NODEVOY'; then $save -w -t $table -I PREROUTING -p tcp --dport 1 -j RETURN; fi
  done
done`},
	}
	if w.variant.mechanism == "tproxy" {
		out = append(out, damage{"the policy routes were deleted", `
ip -4 rule del lookup 1064; ip -6 rule del lookup 1064; ip -4 route flush table 1064; ip -6 route flush table 1064`})
	}
	return append(out, damage{"everything was flushed, as a firewall's reload does", `
for save in $ipt4 $ipt6; do
  for table in raw mangle nat filter; do $save -w -t $table -F; $save -w -t $table -X; done
done`})
}

// window is a time in which requests may fail.
type window struct{ from, to time.Time }

// damage runs the script, has kube-proxy mend its own part, as it does, and
// waits until nodevoy has mended its own. It returns the time in which requests
// may be lost, none when there is to be no loss.
func (w *world) damage(t *testing.T, d damage, want []string) window {
	t.Helper()
	backend := cmp.Or(w.variant.IPTables, "nft")
	script := fmt.Sprintf("ipt4=iptables-%s ipt6=ip6tables-%s\n%s", backend, backend, d.script)
	lost := window{from: time.Now()}
	_, err := w.node.Run(limit(t), "bash", "-c", script)
	check(t, err)
	if strings.HasPrefix(d.what, "everything") {
		// Without kube-proxy's rules a first packet goes to nowhere, and so do
		// all later ones of that connection: the kernel remembers its way. And
		// with the last rule that asks for it, connection tracking stops, so
		// packets of known connections pass untranslated for a moment.
		check(t, w.SyncProxies(limit(t)))
		lost.to = time.Now()
	}
	w.untilKernel(t, d.what, want)
	if w.variant.mechanism == "tproxy" {
		// Nothing but rules leads packets to a transparent socket.
		lost.to = time.Now()
	}
	return lost
}

// checkLosses wants no request to have failed but those that were under way in
// one of the windows.
func (w *world) checkLosses(t *testing.T, loads traffic, lost []window) {
	t.Helper()
	for what, load := range loads {
		must(load.Stop())(t)
		failed := slices.DeleteFunc(load.Records(), func(r echo.Record) bool {
			excused := slices.ContainsFunc(lost, func(l window) bool { return r.At.Before(l.to) && r.At.Add(r.Took).After(l.from) })
			return r.Error == "" || excused
		})
		if len(failed) > 0 {
			t.Errorf("%s: %d requests failed: %q", what, len(failed), failures(failed))
		}
	}
}

// kernel is all there is of nodevoy in the node's kernel, in a fixed order.
func (w *world) kernel(t *testing.T) []string {
	t.Helper()
	lines := must(w.node.OwnRules(limit(t)))(t)
	for _, set := range must(w.node.OwnSets(limit(t)))(t) {
		out := must(w.node.Run(limit(t), "ipset", "save", set))(t)
		for line := range strings.Lines(out) {
			lines = append(lines, stable(line))
		}
	}
	backend := cmp.Or(w.variant.IPTables, "nft")
	for _, table := range []string{"nat", "mangle"} {
		out := must(w.node.Run(limit(t), "iptables-"+backend, "-w", "-t", table, "-S", "PREROUTING"))(t)
		// The first line has the chain's policy.
		if rules := strings.Split(out, "\n"); len(rules) > 1 && strings.Contains(out, "NODEVOY") {
			lines = append(lines, "first in "+table+" PREROUTING: "+rules[1])
		}
	}
	slices.Sort(lines)
	return slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, "initval") || strings.HasPrefix(line, ":") })
}

// stable is a line of `ipset save` without the seconds left to a member.
func stable(line string) string {
	before, _, _ := strings.Cut(strings.TrimSpace(line), " timeout ")
	return before
}

// untilKernel waits until the kernel is again as wanted.
func (w *world) untilKernel(t *testing.T, what string, want []string) {
	t.Helper()
	start := time.Now()
	check(t, waitFor(t, repairLimit, func() error {
		if diff := gocmp.Diff(want, w.kernel(t)); diff != "" {
			return fmt.Errorf("after %q, -want +got:\n%s", what, diff)
		}
		return nil
	}))
	t.Logf("%s: as before after %s", what, time.Since(start))
}

// TestNothingLeft wants a node to be, after `nodevoy cleanup`, byte for byte as
// it was before the agent came, and calls to go on by kube-proxy's path.
func TestNothingLeft(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			w := newWorld(t, v)
			before := w.everything(t)
			w.start(t, "--mechanism", v.mechanism)
			check(t, w.agent.Stop(endLimit))
			check(t, w.envoy.Stop(endLimit))
			check(t, w.node.Cleanup(limit(t)))
			if diff := gocmp.Diff(before, w.everything(t)); diff != "" {
				t.Errorf("the node after cleanup, -before +after:\n%s", diff)
			}
			w.untilPath(t, time.Second, false)
			check(t, w.node.Cleanup(limit(t)))
		})
	}
}

// TestCleanupOnExit wants nothing left when the agent was told to clean up, and
// no call to fail while it does.
func TestCleanupOnExit(t *testing.T) {
	w := newWorld(t, bridged())
	w.start(t, "--cleanup-on-exit")
	load := must(w.client.Load(w.fresh()))(t)
	w.untilPath(t, time.Second, true)
	check(t, w.agent.Stop(endLimit))
	if left := w.kernel(t); len(left) > 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	w.untilPath(t, time.Second, false)
	stop(t, "new connections", load)
}

// everything is the node's packet filter, sets, policy routes and addresses,
// as they are shown, without counters.
func (w *world) everything(t *testing.T) map[string]string {
	t.Helper()
	shown := map[string]string{}
	for _, command := range []string{
		"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save",
		"ipset save", "ip -4 rule", "ip -6 rule", "ip -4 route show table all", "ip addr show dev lo",
	} {
		out := must(w.node.Run(limit(t), strings.Fields(command)...))(t)
		var kept []string
		for line := range strings.Lines(out) {
			// Comments have the time, policies of built-in chains have counters,
			// and a built-in table stays once it was looked at.
			if own := line[0] == ':' && strings.Contains(line, " - "); own || !strings.ContainsRune("#:*C", rune(line[0])) {
				kept = append(kept, line)
			}
		}
		shown[command] = strings.Join(kept, "")
	}
	return shown
}
