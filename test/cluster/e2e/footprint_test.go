// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// footprint is what the kernel of each node holds, by node and command.
type footprint map[string]string

// calmTime is how long nothing changes when kube-proxy has nothing to do.
const calmTime = 3 * time.Second

// footprint reads both nodes.
func (c *cluster) footprint(t *testing.T) footprint {
	t.Helper()
	f := footprint{}
	for _, node := range nodes() {
		for _, command := range []string{
			"iptables-save", "ip6tables-save", "iptables-legacy-save", "ip6tables-legacy-save",
			"ipset list", "ip -4 rule", "ip -6 rule", "ip -4 route show table all", "ip -6 route show table all",
			"ip -brief address show lo",
		} {
			f[node+": "+command] = steady(c.onNode(t, node, strings.Fields(command)...))
		}
		f[node+inPods] = unfilled(steady(c.onNode(t, node, "bash", "-c", everyPod)))
	}
	return f
}

// inPods ends the name of what a node's pods hold, and everyPod lists that.
const (
	inPods   = ": pods"
	everyPod = `
		for pod in /run/netns/*; do
		  for command in iptables-save ip6tables-save "ipset list" "ip -4 rule" "ip -6 rule" \
		    "ip -4 route show table all" "ip -6 route show table all" "ip -brief address show lo"; do
		    echo "$pod: $command"
		    nsenter --net="$pod" $command
		  done
		done`
)

// unfilled leaves out of a listing tables and chains that a kernel has when they
// were ever used: they do nothing, and connections translated by them need them.
func unfilled(listing string) string {
	empty := regexp.MustCompile(`(?m)^(\*[a-z]+|:[A-Z]+ ACCEPT \[\]|COMMIT)\n?`)
	return empty.ReplaceAllString(listing, "")
}

// steady leaves out of a listing what changes by itself: comments, which
// have the time; counters; and the order of kube-proxy's own chains and rules,
// which it writes again in another one whenever a Service changes.
func steady(listing string) string {
	counters := regexp.MustCompile(`\[\d+:\d+\]`)
	expires := regexp.MustCompile(` expires \d+sec`)
	var kept, table []string
	flush := func() {
		slices.Sort(table)
		kept = append(kept, table...)
		table = nil
	}
	for line := range strings.Lines(listing) {
		line = strings.TrimSpace(expires.ReplaceAllString(counters.ReplaceAllString(line, "[]"), ""))
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, ":KUBE-"), strings.HasPrefix(line, "-A KUBE-"):
			table = append(table, line)
		default:
			if strings.HasPrefix(line, "*") || line == "COMMIT" {
				flush()
			}
			kept = append(kept, line)
		}
	}
	flush()
	return strings.Join(kept, "\n")
}

// before is what the nodes hold once kube-proxy has done all there was to do.
func (c *cluster) before(t *testing.T) footprint {
	t.Helper()
	last := c.footprint(t)
	calm := time.Now()
	eventually(t, time.Minute, func() error {
		now := c.footprint(t)
		if diff := cmp.Diff(last, now); diff != "" {
			last, calm = now, time.Now()
			return fmt.Errorf("the nodes still change (-before +after):\n%s", diff)
		}
		if time.Since(calm) < calmTime {
			return errors.New("the nodes have not changed for too short a time")
		}
		return nil
	})
	return last
}

// since waits until both nodes hold what they held before: kube-proxy takes a
// moment to forget a Service.
func (c *cluster) since(t *testing.T, before footprint) {
	t.Helper()
	eventually(t, 60*time.Second, func() error {
		if diff := cmp.Diff(before, c.footprint(t)); diff != "" {
			return fmt.Errorf("the nodes are not as before (-before +after):\n%s", diff)
		}
		return nil
	})
}
