// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/debug/table"
	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// pendingLimit is the age of a change that is not in force from which that is worth a line.
const pendingLimit = 10 * time.Second

// Judge turns facts into a report. now is when they were gathered.
func Judge(node string, f *Facts, now time.Time) Report {
	j := &judge{now: now}
	j.node(f)
	r := Report{Node: node, At: now, Installed: f.Agent != nil || f.AgentError != ""}
	switch {
	case f.AgentError != "":
		j.failed("agent", "the agent could not be asked: "+f.AgentError, "see the log of the container agent in nodevoy's pod of this node")
	case f.Agent != nil:
		r.Mode = f.Agent.View.Redirect.Mode
		j.agent(f.Agent)
	case f.Probe != nil:
		r.Mode = f.Probe.Mode
		j.probe(f)
	}
	j.clock(f.Clock)
	r.Lines = j.lines
	return r
}

// judge collects lines.
type judge struct {
	now   time.Time
	lines []Line
}

func (j *judge) ok(topic, text string) { j.lines = append(j.lines, Line{OK, topic, text, ""}) }

func (j *judge) warning(topic, text, do string) {
	j.lines = append(j.lines, Line{Warning, topic, text, do})
}

func (j *judge) failed(topic, text, do string) {
	j.lines = append(j.lines, Line{Failed, topic, text, do})
}

// node is about what any agent finds.
func (j *judge) node(f *Facts) {
	j.ok("node", fmt.Sprintf("Linux %s, looked at by nodevoy %s with %s", f.Kernel, f.Version, cmp.Or(strings.Join(f.Capabilities, ", "), "no capability that matters")))
}

// probe is about a node without an agent.
func (j *judge) probe(f *Facts) {
	p := f.Probe
	j.reasons(p.Reasons)
	for _, m := range p.Missing {
		j.failed("mode", m.What, m.Remedy)
	}
	switch {
	case p.Error != "":
		j.warning("mode", "it can't be told what the node has: "+p.Error, "run the check again; the agent tries for a minute, too")
	case p.Mode != "":
		j.ok("mode", "an agent will take "+modeOf(p.Mode, p.Mechanism, p.Backend))
	}
	if len(f.Ports) > 0 {
		j.failed("ports", "in use on the node by another program: "+strings.Join(f.Ports, ", "), "free them, or choose others by the settings that `nodevoy agent --help` lists")
	}
}

// modeOf is a mode in words.
func modeOf(mode, mechanism, backend string) string {
	text := "mode " + mode
	if mechanism != "" && mechanism != "auto" {
		text += ", by " + mechanism
	}
	if backend != "" {
		text += ", with iptables-" + backend
	}
	return text
}

// reasons are a probe's findings: those that are warnings say what to do themselves.
func (j *judge) reasons(reasons []string) {
	for _, reason := range reasons {
		topic := "mode"
		if strings.Contains(reason, "kube-proxy is") || strings.Contains(reason, "kube-proxy says") || strings.Contains(reason, "no sign of a kube-proxy") {
			topic = "kube-proxy"
		}
		text, warned := strings.CutPrefix(reason, "warning: ")
		switch {
		case warned:
			j.warning(topic, text, "see Modes in nodevoy's README")
		case strings.HasPrefix(reason, "mode pod can't be used"):
			j.warning(topic, text, "nothing, if mode host will do: backends then see the node's address; see Modes in nodevoy's README")
		case strings.HasPrefix(reason, "not known whether"):
			j.warning(topic, text, "look for eBPF programs of the CNI by `bpftool net` and `bpftool cgroup tree`")
		default:
			j.ok(topic, text)
		}
	}
}

// agent is about a node with an agent.
func (j *judge) agent(a *Agent) {
	v := &a.View
	j.reasons(v.Redirect.Why)
	j.ok("mode", "in "+modeOf(v.Redirect.Mode, v.Redirect.Mechanism, v.Redirect.Backend))
	j.state(v)
	j.objects(v)
	j.envoy(a)
	j.kernel(&v.Redirect)
	j.pods(v)
	switch {
	case a.MetricsError != "":
		j.warning("metrics", fmt.Sprintf("no metrics at %s: %s", a.Metrics, a.MetricsError), "see the value monitoring of the chart, and whether another program has the port")
	case a.Metrics != "":
		j.ok("metrics", "served at "+a.Metrics)
	}
}

// state is about what the agent says of itself.
func (j *judge) state(v *view.Status) {
	switch {
	case v.Stuck != "":
		j.failed("agent", "stuck: "+v.Stuck, "see its log; kubelet restarts it")
	case v.NotReady != "":
		j.failed("agent", "this node does not redirect: "+v.NotReady, "see the lines about envoy, kernel and objects")
	default:
		j.ok("agent", v.Phase)
	}
	if v.PendingSince != nil && j.now.Sub(*v.PendingSince) > pendingLimit {
		j.warning("agent", fmt.Sprintf("a change has not been in force for %s", j.now.Sub(*v.PendingSince).Round(time.Second)), "see the lines about envoy and kernel")
	}
	if left := v.Memory.LeftServices; left > 0 {
		j.warning("envoy", fmt.Sprintf("frontends of %d Services are left to kube-proxy for want of memory: %s", left, strings.Join(table.MostLeft(v.Memory.Left, v.Memory.LeftServices), ", ")), "raise envoy.resources.limits.memory, or envoy.clusterMemory, in the chart")
	}
}

func (j *judge) objects(v *view.Status) {
	bad := 0
	for _, w := range v.Watches {
		if w.Error != "" {
			bad++
			j.failed("objects", fmt.Sprintf("%s can't be read or followed: %s", w.Kind, w.Error), "see whether the API server answers, and the ClusterRole of the chart is bound")
		} else if !w.Synced && !w.Absent {
			bad++
			j.warning("objects", w.Kind+" have not all been read yet", "wait, and check again")
		}
	}
	if bad == 0 {
		j.ok("objects", fmt.Sprintf("all %d kinds are read and followed", len(v.Watches)))
	}
	if n := v.ProblemCount; n > 0 && len(v.Problems) > 0 {
		j.warning("objects", fmt.Sprintf("%d can't be used as written, such as %s", n, v.Problems[0]), "`nodevoy status` lists all of them")
	}
}

func (j *judge) envoy(a *Agent) {
	e := &a.View.Envoy
	const logs = "see the log of the container envoy in nodevoy's pod of this node"
	switch {
	case !e.Connected:
		j.failed("envoy", "not connected to the agent", logs)
	case !e.ListenersAcked:
		j.failed("envoy", "has not accepted its listeners", "`nodevoy xds` shows what it refused")
	case a.EnvoyError != "":
		j.failed("envoy", "does not serve: "+a.EnvoyError, logs)
	case e.ProbeError != "":
		j.failed("envoy", "does not answer on its listeners: "+e.ProbeError, logs)
	default:
		j.ok("envoy", strings.TrimSpace(e.Version+" serves, is connected and has accepted its listeners"))
	}
	if e.Nacks > 0 {
		j.warning("envoy", fmt.Sprintf("has refused %d updates", e.Nacks), "`nodevoy xds` shows which, and why")
	}
}

func (j *judge) kernel(r *view.Redirect) {
	switch {
	case r.Error != "":
		j.failed("kernel", "rules are not applied: "+r.Error, "see the agent's log")
	case r.CheckError != "":
		j.warning("kernel", "it can't be told whether the rules are in place: "+r.CheckError, "see whether another program holds the lock of iptables for long")
	case r.Applied == nil:
		j.warning("kernel", "no rules have been applied yet", "wait, and check again")
	default:
		j.ok("kernel", fmt.Sprintf("%d rules are in place", r.Rules))
	}
	if r.DriftRepaired > 0 {
		j.warning("kernel", fmt.Sprintf("another program changed nodevoy's rules; that was repaired %d times", r.DriftRepaired), "find what flushes or rewrites iptables on the node, such as a firewall's service")
	}
	if r.Leftover != "" {
		j.warning("kernel", "rules of the other mode are still there: "+r.Leftover, "run `nodevoy cleanup` on the node with the capabilities of both modes")
	}
}

// podsNamed is how many pods a line names.
const podsNamed = 3

func (j *judge) pods(v *view.Status) {
	var left []string
	enrolled := 0
	for _, p := range v.Pods {
		if !p.Enrolled {
			continue
		}
		enrolled++
		if !p.Redirected {
			left = append(left, fmt.Sprintf("%s/%s (%s)", p.Namespace, p.Name, cmp.Or(p.NotRedirected, "not said why")))
		}
	}
	switch {
	case enrolled == 0:
		j.ok("pods", "none of this node is enrolled: label a namespace nodevoy.io/redirect=enabled to start")
	case len(left) == 0:
		j.ok("pods", fmt.Sprintf("all %d that are enrolled are redirected", enrolled))
	default:
		named := slices.Clone(left[:min(podsNamed, len(left))])
		if more := len(left) - podsNamed; more > 0 {
			named = append(named, fmt.Sprintf("and %d more", more))
		}
		j.warning("pods", fmt.Sprintf("%d of %d that are enrolled are not redirected: %s", len(left), enrolled, strings.Join(named, ", ")), "`nodevoy pods` lists all of them; `nodevoy why --from NAMESPACE/POD --to SERVICE:PORT` says why")
	}
}

func (j *judge) clock(c Clock) {
	switch {
	case !c.Known:
	case c.Synchronized:
		j.ok("clock", "synchronized")
	default:
		j.warning("clock", "the kernel says that nothing synchronizes it", "run chrony or another client of NTP on the node: the order of flows of several nodes depends on it")
	}
}
