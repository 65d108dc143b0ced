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

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// repairLimit is within what time damage is to be repaired.
const repairLimit = 5 * time.Second

// TestDrift damages what nodevoy put into the kernel in every way seen on
// nodes, or in pods that may do so, under load, and wants it as it was within 5 s.
func TestDrift(t *testing.T) {
	each(t, []variant{hostBridged(), hostRouted(), podBridged(), podLegacy()}, func(t *testing.T, w *fixture) {
		w.start(t)
		want := w.kernel(t)
		loads := w.startTraffic(t)
		var lost []window
		damages := w.damages()
		for _, d := range damages {
			lost = append(lost, w.damage(t, d, want))
			w.untilPath(t, repairLimit, true)
		}
		w.checkLosses(t, loads, lost)
		if s := must(w.node.Status(limit(t)))(t); s.Redirect.DriftRepaired < len(damages) {
			t.Errorf("the agent counts %d repairs, want at least %d", s.Redirect.DriftRepaired, len(damages))
		}
	})
}

// damage is a change to the kernel that nodevoy has not made.
type damage struct {
	what string
	// script is for a shell where the client's rules are, with iptables in $ipt4
	// and $ipt6.
	script string
}

const (
	flushChains = `
for save in $ipt4 $ipt6; do
  for table in raw mangle nat filter; do
    for chain in $($save-save -t $table | sed -n 's/^:\(NODEVOY[^ ]*\).*/\1/p'); do $save -w -t $table -F $chain; done
  done
done`
	deleteJumps = `
for save in $ipt4 $ipt6; do
  for table in raw mangle nat filter; do
    $save-save -t $table | sed -n 's/^-A \(.* -j NODEVOY-[^ ]*\)$/-D \1/p' | grep -v '^-D NODEVOY' | while read -r rule; do $save -w -t $table $rule; done
  done
done`
	emptySets = `
for set in $(ipset list -n | grep nodevoy); do ipset flush $set; done`
	goBeforeJumps = `
for save in $ipt4 $ipt6; do
  for table in mangle nat; do
    if $save-save -t $table | grep -q '^-A PREROUTING.*NODEVOY'; then $save -w -t $table -I PREROUTING -p tcp --dport 1 -j RETURN; fi
  done
done`
	deleteRoutes = `
ip -4 rule del lookup 1064; ip -6 rule del lookup 1064; ip -4 route flush table 1064; ip -6 route flush table 1064`
	flushAll = `
for save in $ipt4 $ipt6; do
  for table in raw mangle nat filter; do $save -w -t $table -F; $save -w -t $table -X; done
done`
)

func (w *fixture) damages() []damage {
	out := []damage{
		{"our chains were flushed", flushChains},
		{"our jumps were deleted", deleteJumps},
		{"our sets were emptied", emptySets},
	}
	if w.variant.Mode == lab.Host {
		// A pod with rules of its own is another matter: see TestPodsOwnRules.
		out = append(out, damage{"others' rules were put before our jumps", goBeforeJumps})
	}
	if w.variant.mechanism == "tproxy" {
		out = append(out, damage{"the policy routes were deleted", deleteRoutes})
	}
	return append(out, damage{"everything was flushed, as a firewall's reload does", flushAll})
}

// window is a time in which requests may fail.
type window struct{ from, to time.Time }

// damage runs the script, has kube-proxy repair its own part, as it does, and
// waits until nodevoy has repaired its own. It returns the time in which requests
// may be lost, none when there is to be no loss.
func (w *fixture) damage(t *testing.T, d damage, want []string) window {
	t.Helper()
	backend := cmp.Or(w.variant.IPTables, "nft")
	script := fmt.Sprintf("ipt4=iptables-%s ipt6=ip6tables-%s\n%s", backend, backend, d.script)
	lost := window{from: time.Now()}
	_, err := w.netns().Run(limit(t), "bash", "-c", script)
	check(t, err)
	if d.script == flushAll {
		// Without kube-proxy's rules a first packet goes to nowhere, and so do
		// all later ones of that connection: the kernel remembers its way. And
		// with the last rule that asks for it, connection tracking stops, so
		// packets of known connections pass untranslated for a moment.
		check(t, w.SyncProxies(limit(t)))
		lost.to = time.Now()
	}
	w.untilKernel(t, d.what, want)
	flushed := d.script == flushAll || d.script == flushChains
	if w.variant.mechanism == "tproxy" || w.variant.Mode == lab.Pods && flushed {
		// Nothing but rules leads packets to a transparent socket; and a pod has
		// no other rules than ours that keep connection tracking going: without
		// them packets of redirected connections pass untranslated.
		lost.to = time.Now()
	}
	return lost
}

// checkLosses wants no request to have failed but those that were under way in
// one of the windows.
func (w *fixture) checkLosses(t *testing.T, loads traffic, lost []window) {
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

// kernel is all there is of nodevoy in the kernel, on the node and in its pods,
// in a fixed order.
func (w *fixture) kernel(t *testing.T) []string {
	t.Helper()
	lines := must(w.node.Own(limit(t)))(t)
	backend := cmp.Or(w.variant.IPTables, "nft")
	for _, at := range [][2]string{{"nat", "PREROUTING"}, {"mangle", "PREROUTING"}, {"nat", "OUTPUT"}} {
		out := must(w.netns().Run(limit(t), "iptables-"+backend, "-w", "-t", at[0], "-S", at[1]))(t)
		// The first line has the chain's policy.
		if rules := strings.Split(out, "\n"); len(rules) > 1 && strings.Contains(out, "NODEVOY") {
			lines = append(lines, "first in "+at[0]+" "+at[1]+": "+rules[1])
		}
	}
	return lines
}

// untilKernel waits until the kernel is again as wanted.
func (w *fixture) untilKernel(t *testing.T, what string, want []string) {
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

// TestNothingLeft wants a node and its pods to be, after `nodevoy cleanup`, byte
// for byte as they were before the agent came, and calls to go on by
// kube-proxy's path.
func TestNothingLeft(t *testing.T) {
	each(t, append(hosts(), podBridged(), podLegacy(), podRouted()), func(t *testing.T, w *fixture) {
		before := w.everything(t)
		var flags []string
		if w.variant.mechanism != "" {
			flags = []string{"--mechanism", w.variant.mechanism}
		}
		w.start(t, flags...)
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

// TestCleanupOnExit wants nothing left when the agent was told to clean up, and
// no call to fail while it does.
func TestCleanupOnExit(t *testing.T) {
	each(t, modes(), func(t *testing.T, w *fixture) {
		w.start(t, "--cleanup-on-exit")
		load := must(w.client.Load(w.fresh()))(t)
		w.untilPath(t, time.Second, true)
		check(t, w.agent.Stop(endLimit))
		if left := w.kernel(t); len(left) > 0 {
			t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		}
		w.untilPath(t, time.Second, false)
		stop(t, "new connections", load)
	})
}

// everything is the packet filter, sets, policy routes and addresses of the node
// and its pods, as they are shown, without counters.
func (w *fixture) everything(t *testing.T) map[string]string {
	t.Helper()
	shown := map[string]string{}
	for _, ns := range w.node.AllNetns() {
		for _, command := range []string{
			"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save",
			"ipset save", "ip -4 rule", "ip -6 rule", "ip -4 route show table all", "ip addr show dev lo",
		} {
			out := must(ns.Run(limit(t), strings.Fields(command)...))(t)
			var kept []string
			for line := range strings.Lines(out) {
				// Comments have the time, policies of built-in chains have counters,
				// and a built-in table stays once it was looked at.
				if own := line[0] == ':' && strings.Contains(line, " - "); own || !strings.ContainsRune("#:*C", rune(line[0])) {
					kept = append(kept, line)
				}
			}
			shown[ns.Name+": "+command] = strings.Join(kept, "")
		}
	}
	return shown
}
