// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/flow"
)

// TestPage is all that is tested in one browser.
func TestPage(t *testing.T) {
	b := startBrowser(t)
	// Only one tab of a browser has the keyboard.
	t.Run("keyboard", func(t *testing.T) { testKeyboard(t, b) })
	tests := map[string]func(*testing.T, *browser){
		"node": testNode, "trouble": testTrouble, "flow shows soon": testSoon, "filters": testFilters, "pause": testPause, "detail": testDetail,
		"map": testMap, "crowded map": testCrowdedMap, "why": testWhy, "hostile names": testHostileNames,
		"agent gone": testAgentGone, "bounded": testBounded, "what fails": testWhatFails, "narrow": testNarrow, "idle": testIdle, "starting": testStarting, "full": testFull,
	}
	if os.Getenv("NODEVOY_SCREENSHOTS") != "" {
		tests["screenshots"] = testScreenshots
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, b)
		})
	}
}

func testNode(t *testing.T, b *browser) {
	n := start(t)
	p := b.open(t, n.url, "")
	p.has("#node-name", "node-a")
	p.has("#phase", "redirecting")
	for _, text := range []string{
		"2 of 3 enrolled pods redirected", "no eBPF programs", "1.40.0", "52 rules", "drift repaired 1 time", "-A OUTPUT -j OTHER comes first", "127.0.0.1:23719: for every process",
		"all 2 kinds of objects",
	} {
		p.has("#cards", text)
	}
	p.has("#pods tbody tr:first-child", "the pod has nat rules of its own")
	p.has("#services", "shop/cart/http")
	p.has("#services", "10 %")
	p.until(`document.querySelector('#services svg[aria-label^="p99 of shop/cart/http"]').ariaLabel.includes(' ms now')`)
	p.click("#pods tbody tr:first-child .links a:last-child")
	p.until(`document.querySelector('#why-form [name=from]').value === 'shop/legacy-0'`)
}

// testTrouble: what is wrong is said, and in which card.
func testTrouble(t *testing.T, b *browser) {
	n := start(t)
	trouble := func(s *view.Summary) {
		s.Phase, s.Reason, s.Stuck = "waiting for Envoy", "no Envoy is connected", "the loop has not moved for 1m10s"
		s.Envoy = view.Envoy{Nacks: 1, LastNacks: []view.Nack{{At: s.At, Type: "listener", Detail: "cannot bind"}}}
		s.Problems, s.ProblemCount = []string{"service shop/x: bad port"}, 3
		s.Watches[1].Error = "forbidden"
	}
	n.change.Store(&trouble)
	p := b.open(t, n.url, "#node")
	p.has("#alert", "may be old: the loop has not moved for 1m10s")
	for _, text := range []string{"no Envoy is connected", "not connected to the agent", "cannot bind", "service shop/x: bad port", "and 2 more", "services can't be read: forbidden"} {
		p.has("#cards .wrong", "")
		p.until("[...document.querySelectorAll('#cards .bad')].some((e) => e.textContent.includes(" + quote(text) + "))")
	}
}

// testSoon: a call is in the table within a second. The machine may be busy, so the best
// of some tries counts.
func testSoon(t *testing.T, b *browser) {
	n := start(t)
	p := b.open(t, n.url, "#flows")
	p.has("#flows-empty", "make a call")
	p.until("document.querySelector('#flows').getClientRects().length === 0")
	p.has("#feed-state", "Following")
	best := time.Hour
	for i := range 5 {
		before := time.Now()
		n.flows.Add(call("cart", 1))
		p.until(fmt.Sprintf("document.querySelectorAll('#flows tbody tr').length === %d", i+1))
		best = min(best, time.Since(before))
	}
	if best > time.Second {
		t.Errorf("a flow is shown after %v", best)
	}
	for _, text := range []string{"shop/web-7f9c5-x2x1p", "shop/cart/http", "shop/cart-1", "GET /cart/items", "200", "3.2 ms"} {
		p.has("#flows tbody tr", text)
	}
	p.until("document.querySelector('#flows-empty').textContent === ''")
}

func testFilters(t *testing.T, b *browser) {
	n := start(t)
	n.flows.Add(call("cart", 1), call("api", 1, broken), call("api", 2), call("db", 1, kernel))
	p := b.open(t, n.url, "#flows", "400 (Bad Request)")
	p.until("document.querySelectorAll('#flows tbody tr').length === 4")
	p.click("#filters [name=failed]")
	p.until("document.querySelectorAll('#flows tbody tr').length === 1 && location.hash === '#flows?failed=true'")
	p.has("#flows tbody", "the connection to the backend failed")
	p.click("#filters [type=reset]")
	p.until("document.querySelectorAll('#flows tbody tr').length === 4")
	for key, c := range map[string]struct {
		value string
		rows  int
	}{
		"to": {"shop/api", 2}, "from": {"shop/web", 3}, "status": {"5xx", 1}, "protocol": {"TCP", 1}, "origin": {"kernel", 1}, "namespace": {"nobody", 0}, "slower": {"1s", 0},
	} {
		p.value("#filters [name="+key+"]", c.value)
		p.until(fmt.Sprintf("document.querySelectorAll('#flows tbody tr').length === %d && location.hash.startsWith('#flows?%s=')", c.rows, key))
		p.click("#filters [type=reset]")
		p.until("document.querySelectorAll('#flows tbody tr').length === 4")
	}
	// What does not match does not come.
	p.value("#filters [name=to]", "shop/api")
	p.has("#feed-state", "Following")
	n.flows.Add(call("cart", 7), call("api", 7))
	p.has("#flows tbody", "shop/api-7")
	p.until("!document.querySelector('#flows tbody').textContent.includes('cart')")
	p.value("#filters [name=slower]", "soon")
	p.has("#feed-state", `slower "soon": want a duration`)
}

func testPause(t *testing.T, b *browser) {
	n := start(t)
	p := b.open(t, n.url, "#flows")
	p.has("#feed-state", "Following")
	n.flows.Add(call("cart", 1))
	p.has("#flows tbody", "shop/cart-1")
	p.click("#pause")
	n.flows.Add(call("cart", 2), call("cart", 3))
	p.has("#feed-state", "2 flows since then")
	p.until("document.querySelectorAll('#flows tbody tr').length === 1")
	p.click("#pause")
	p.has("#flows tbody", "shop/cart-3")
	// Who asks for other flows wants to see them.
	p.click("#pause")
	p.value("#filters [name=to]", "shop/cart-2")
	p.until("document.querySelectorAll('#flows tbody tr').length === 1")
	p.has("#feed-state", "Following")
}

// testStarting: an agent that knows nothing yet has a page, too.
func testStarting(t *testing.T, b *browser) {
	n := start(t)
	n.pods = nil
	nothing := func(s *view.Summary) {
		*s = view.Summary{Node: "node-a", At: s.At, Phase: "starting", Reason: "pods are not read yet"}
	}
	n.change.Store(&nothing)
	p := b.open(t, n.url, "#node")
	p.has("#cards", "pods are not read yet")
	p.has("#pods-note", "not read them yet")
	n.change.Store(nil)
	p.has("#cards", "52 rules")
}

// testFull: a stream that the agent has no room for is said to be so, and is asked for
// again.
func testFull(t *testing.T, b *browser) {
	n := start(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for range 16 {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/v1/flows?follow", http.NoBody)
		must(t, err)
		answer, err := http.DefaultClient.Do(r)
		must(t, err)
		defer answer.Body.Close()
	}
	p := b.open(t, n.url, "#flows", "503 (Service Unavailable)")
	p.has("#feed-state", "many follow already")
	stop()
	p.has("#feed-state", "Following")
}

func testDetail(t *testing.T, b *browser) {
	n := start(t)
	answer := "all-ejected"
	n.answer.Store(&answer)
	n.flows.Add(call("cart", 1, broken))
	p := b.open(t, n.url, "#flows")
	p.click("#flows tbody tr button")
	for _, text := range []string{
		"GET /cart/items", "UF: the connection to the backend failed", "delayed connect error: 111", "workload web", "10.244.1.5:41522", "zone zone-b", "dialled at 10.96.0.10:80",
		"http: port name http", "5.0 KiB received", "0b0c9a3e-1f", "Envoy has ejected all 3 backends",
	} {
		p.has("#flow", text)
	}
	if q := <-n.asked; q.Get("flow") != "1" {
		t.Errorf("the page asked %v", q)
	}
	p.until("document.querySelector('#flow svg.path .station.broken')")
	p.click("#flow .close")
	p.until("!document.querySelector('#flow').open")
}

// testAgentGone: while the agent does not answer, the page says how old what it shows is,
// and it goes on by itself.
func testAgentGone(t *testing.T, b *browser) {
	n := start(t)
	p := b.open(t, n.url, "#flows", "ERR_")
	p.has("#feed-state", "Following")
	p.has("#phase", "redirecting")
	n.flows.Add(call("cart", 1))
	p.has("#flows tbody", "shop/cart-1")
	n.stop()
	p.has("#feed-state", "Not followed")
	p.has("#alert", "What is shown is old. As of ")
	n.flows = flow.NewLog(10)
	n.flows.Add(call("cart", 77))
	n.serve(t, strings.TrimPrefix(n.url, "http://"))
	// The new agent's first flow has the number of one that the page has seen.
	p.has("#flows tbody", "shop/cart-77")
	p.until("document.querySelectorAll('#flows tbody tr').length === 1 && document.querySelector('#alert').hidden")
}

// testIdle: nobody follows the flows of a page at which nobody looks.
func testIdle(t *testing.T, b *browser) {
	n := start(t)
	p := b.open(t, n.url, "#flows")
	p.has("#feed-state", "Following")
	if got := n.flows.Followers(); got != 1 {
		t.Errorf("%d follow", got)
	}
	p.eval("import('/feed.js').then(async ({ Feed }) => { window.idle = new Feed(); idle.patience = 10; await idle.open({}); })", nil)
	p.until("idle.state === 'open'")
	p.eval("idle.look(false)", nil)
	p.until("idle.state === 'closed'")
	for end := time.Now().Add(patience); n.flows.Followers() != 1; {
		if time.Now().After(end) {
			t.Fatalf("%d follow", n.flows.Followers())
		}
		<-n.flows.Changed()
	}
	// The node's own view does not follow.
	other := start(t)
	b.open(t, other.url, "#node").has("#cards", "Envoy")
	if got := other.flows.Followers(); got != 0 {
		t.Errorf("%d follow the flows of a page that shows none", got)
	}
}

// testBounded: of many flows, the table has the last ones, and the page keeps few.
func testBounded(t *testing.T, b *browser) {
	n := start(t)
	n.flows.Lose(flow.LossSampled, 1234)
	p := b.open(t, n.url, "#flows")
	p.has("#feed-state", "Left out since the agent began: 1,234 (sampled)")
	p.has("#feed-state", "Following")
	// More at once than a follower may be behind.
	n.flows.Add(slices.Repeat([]flow.Flow{call("cart", 1)}, 6000)...)
	p.has("#feed-state", "flows lost on the way here")
	n.flows.Add(call("cart", 2))
	p.has("#flows tbody tr:first-child", "shop/cart-2")
	var rows int
	p.eval("document.querySelectorAll('#flows tbody tr').length", &rows)
	if rows != 200 {
		t.Errorf("%d rows", rows)
	}
	p.eval("location.hash = '#map'", nil)
	p.until("[...document.querySelectorAll('#map .box title')].some((e) => e.textContent.startsWith('cart-1, shop on node-b: 1,999 flows'))")
}

// testWhatFails: the page and the agent take the same flows for failed.
func testWhatFails(t *testing.T, b *browser) {
	p := b.open(t, start(t).url, "")
	var got struct {
		Flags []flow.Flag
		GRPC  []int
	}
	p.eval("import('/flow.js').then((m) => ({ Flags: m.failures.map((flag) => ({ flag })), GRPC: m.failedGRPC }))", &got)
	want := flow.Failures()
	slices.Sort(want)
	slices.Sort(got.Flags)
	if d := cmp.Diff(want, got.Flags); d != "" {
		t.Errorf("flags (-agent +page):\n%s", d)
	}
	if d := cmp.Diff(flow.FailedGRPC(), got.GRPC); d != "" {
		t.Errorf("statuses of gRPC (-agent +page):\n%s", d)
	}
}
