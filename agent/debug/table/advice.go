// SPDX-License-Identifier: Apache-2.0

package table

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nodevoy/nodevoy/agent/advise"
)

// Advice prints what enrolling would change for a person. now is the time ages are
// counted to.
func Advice(w io.Writer, a *advise.Advice, now time.Time) error {
	t := &table{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row("NODE", a.Node)
	t.row("LOOKED AT", count(a.Connections, "open connection")+" of this node's pods to Services, past Envoy")
	if a.Note != "" {
		t.row("NOTE", oneLine(a.Note))
	}
	t.flush()
	t.stuck(a.Stuck, now)
	t.called(a.Services)
	t.labels(a.Namespaces)
	return t.err
}

// stuck lists callers whose connections all lead to one backend.
func (t *table) stuck(all []advise.Stuck, now time.Time) {
	t.line("")
	if len(all) == 0 {
		t.line("No caller holds long-lived connections to a Service that all lead to one backend.")
		t.flush()
		return
	}
	t.row("STUCK CALLER", "SERVICE", "ONLY BACKEND", "CONNECTIONS", "SINCE", "IF IT WERE ENROLLED")
	for _, s := range all {
		since := "?"
		if s.Since != nil {
			since = age(*s.Since, now)
		}
		t.row(s.Caller.Name(), s.Service.String(), fmt.Sprintf("%s, of %d", s.Backend.Name(), s.Backends),
			fmt.Sprint(s.Connections), since, s.Would)
	}
	t.flush()
}

// called lists the Services that were called, with the shares of their backends.
func (t *table) called(all []advise.Service) {
	if len(all) == 0 {
		return
	}
	t.line("")
	t.row("SERVICE", "WOULD BE", "WHY", "CALLERS", "BACKEND", "SHARE", "FAIR")
	for i := range all {
		s := &all[i]
		class, why := s.Class, s.Why
		if s.Bypass != "" {
			class, why = "left to kube-proxy", s.Bypass
		}
		head := []string{s.Service.String(), class, oneLine(why), fmt.Sprint(s.Callers)}
		for _, b := range s.Backends {
			t.row(append(head, b.Name(), percent(b.Share), percent(b.Fair))...)
			head = []string{"", "", "", ""}
		}
	}
	t.flush()
}

// labels lists what the label of each namespace would do.
func (t *table) labels(all []advise.Namespace) {
	t.line("")
	t.row("NAMESPACE", "ENROLLED", "ITS LABEL WOULD ENROLL", "AND NOT")
	for _, n := range all {
		var not []string
		for _, p := range n.Others {
			not = append(not, p.Pod+": "+oneLine(p.Why))
		}
		rows := max(1, len(not))
		for i := range rows {
			line := []string{"", "", "", ""}
			if i == 0 {
				line = []string{n.Namespace, fmt.Sprint(len(n.Enrolled)), some(n.Would), "-"}
			}
			if len(not) > 0 {
				line[3] = not[i]
			}
			t.row(line...)
		}
	}
	t.flush()
}

// some are the first of several names, and how many there are.
func some(names []string) string {
	const shown = 3
	switch {
	case len(names) == 0:
		return "-"
	case len(names) <= shown:
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
}

func percent(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
