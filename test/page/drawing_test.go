// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/agent/flow"
)

// lines are those of the map: which box leads to which, how, and how often.
const lines = `[...document.querySelectorAll('#map path')].map((l) => l.querySelector('title').textContent + (l.matches('.failed') ? ' red' : '') + (l.matches('.kernel') ? ' dashed' : '')).sort()`

func testMap(t *testing.T, b *browser) {
	n := start(t)
	p := b.open(t, n.url, "#map")
	p.has("#map-empty", "make a call")
	begun := call("db", 1, kernel)
	begun.Open = true
	n.flows.Add(call("cart", 1), call("cart", 1), call("cart", 2, broken), begun, call("db", 1, kernel), call("gone", 1, func(f *flow.Flow) {
		broken(f)
		f.Backend = flow.Peer{}
	}))
	p.until("document.querySelectorAll('#map path').length === 6")
	var got []string
	p.eval(lines, &got)
	want := []string{
		"batch → db http: 1 flow, 1 not redirected dashed",
		"cart http → cart-1: 2 flows",
		"cart http → cart-2: 1 flow, 1 failed red",
		"db http → db-1: 1 flow, 1 not redirected dashed",
		"web → cart http: 3 flows, 1 failed red",
		"web → gone http: 1 flow, 1 failed red",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	p.until("document.querySelectorAll('#map-table tbody tr').length === 6")
	// A box is a filter, and one that is on stays.
	p.click(`#map a[aria-label^="cart http"]`)
	p.until("location.hash === '#map?to=shop%2Fcart%2Fhttp' && document.querySelectorAll('#map path').length === 3")
	p.click(`#map a[aria-label^="web"]`)
	p.until("location.hash === '#map?from=shop%2Fweb&to=shop%2Fcart%2Fhttp'")
}

// crowd are flows of sixty callers, Services and pods.
func crowd() []flow.Flow {
	var all []flow.Flow
	for i := range 60 {
		for j := range 1 + i%7 {
			all = append(all, call(fmt.Sprintf("service-%02d", (i*j+i)%60), j, func(f *flow.Flow) {
				f.Source.Pod, f.Source.Workload = fmt.Sprintf("caller-%02d-abc", i), fmt.Sprintf("caller-%02d", i)
				if i%13 == 4 {
					broken(f)
				}
			}))
		}
	}
	return all
}

// testCrowdedMap: of many, the map shows those that call most; what it adds up is all.
func testCrowdedMap(t *testing.T, b *browser) {
	n := start(t)
	all := crowd()
	n.flows.Add(all...)
	p := b.open(t, n.url, "#map")
	p.until("document.querySelectorAll('#map .box').length === 60")
	p.has("#map", "41 others")
	var sum int
	p.eval(`[...document.querySelectorAll('#map .box')].filter((b) => b.dataset.key.startsWith('caller')).reduce((n, b) => n + Number(b.ariaLabel.match(/: ([0-9,]+) flow/)[1]), 0)`, &sum)
	if sum != len(all) {
		t.Errorf("callers have %d flows of %d", sum, len(all))
	}
	var overlap bool
	p.eval(`(() => {
		const boxes = [...document.querySelectorAll('#map .box rect')].map((r) => r.getBoundingClientRect());
		return boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom));
	})()`, &overlap)
	if overlap {
		t.Error("boxes overlap")
	}
	var unused int
	p.eval("document.querySelector('#map').clientWidth - document.querySelector('#map svg').clientWidth", &unused)
	if unused < 0 || unused > 40 {
		t.Errorf("the map leaves %d pixels of its width unused", unused)
	}
}

// testWhy draws answers that the agent's package why gave in its own tests.
func testWhy(t *testing.T, b *browser) {
	n := start(t)
	p := b.open(t, n.url, "#why", "400 (Bad Request)")
	p.has("#why-answer", "Say who calls")
	p.until("document.querySelectorAll('#known-services option').length === 3")
	// Boxes with their states, edges with theirs.
	const drawn = `[...document.querySelectorAll('#why-answer svg.path .station')].map((s) => s.querySelector('text:nth-of-type(2)').textContent + ' ' + s.classList[1]).join(', ')
		+ ' | ' + [...document.querySelectorAll('#why-answer svg.path .edge')].map((e) => e.classList[1]).join(' ')`
	const ok = "pod ok, Service ok, rule ok, listener ok, cluster ok, "
	for situation, want := range map[string]string{
		"through-envoy": ok + "shop/api-1 ok, shop/api-2 ok, shop/api-3 ok | ok ok ok ok ok ok ok",
		"all-ejected":   ok + "shop/api-1 broken, shop/api-2 broken, shop/api-3 broken | ok ok ok ok broken broken broken",
		"rule-missing": "pod ok, Service ok, rule broken, listener ok, cluster ok, shop/api-1 ok, shop/api-2 ok, shop/api-3 ok, past Envoy left" +
			" | ok broken none none none left none left none left left",
		"not-labelled": "pod left, Service ok, rule none, listener none, cluster none, shop/api-1 ok, shop/api-2 ok, shop/api-3 ok, past Envoy left" +
			" | none none none none none left none left none left left",
		"wrong-name":   "pod ok, Service broken, rule none, listener none, cluster none, backends none | broken none none none none",
		"local-policy": "pod ok, Service ok, rule none, listener none, cluster none, shop/api-2 none, shop/api-3 none | ok none none none broken broken",
		"elsewhere":    "pod unknown, Service ok, rule none, listener none, cluster none, shop/api-1 ok, shop/api-2 ok, shop/api-3 ok | ok none none none none none none",
		"not-live":     "pod ok, Service ok, rule unknown, listener ok, cluster ok, shop/api-1 ok, shop/api-2 ok, shop/api-3 ok | ok unknown ok ok ok ok ok",
	} {
		n.answer.Store(&situation)
		p.value("#why-form [name=from]", "shop/client")
		p.value("#why-form [name=to]", "api:80")
		p.eval("document.querySelector('#why-form').requestSubmit()", nil)
		p.until("document.querySelector('#why-answer svg.path') && document.querySelector('#why-answer .chain')")
		var got string
		p.eval(drawn, &got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", situation, d)
		}
		if q := <-n.asked; q.Get("from") != "shop/client" || q.Get("to") != "api:80" || q.Has("live") {
			t.Errorf("the page asked %v", q)
		}
		p.eval("location.hash = '#why'", nil)
		p.has("#why-answer", "Say who calls")
	}
	p.value("#why-form [name=from]", "shop/nobody")
	p.eval("document.querySelector('#why-form').requestSubmit()", nil)
	p.has("#why-answer .bad", "there is no pod shop/nobody on this node")
}

// testHostileNames: what users write is text, wherever it is shown.
func testHostileNames(t *testing.T, b *browser) {
	n := start(t)
	const name = `<img src=x onerror="window.harmed=1">`
	n.name = name
	wrong := func(s *view.Summary) {
		s.Node, s.Phase, s.Reason, s.Stuck, s.Problems, s.ProblemCount = name, name, name, name, []string{name}, 1
		s.Envoy.Version, s.Redirect.Why, s.Redirect.Error, s.Watches[0].Error = name, []string{name}, name, name
	}
	n.change.Store(&wrong)
	n.pods[0].Name, n.pods[0].Reason, n.pods[0].Netns = name, name, name
	n.flows.Add(call("cart", 1, func(f *flow.Flow) {
		f.Source = flow.Peer{Address: netip.MustParseAddrPort("10.244.1.5:1"), Namespace: name, Pod: name, Workload: name, Node: name, Zone: name}
		f.Service = flow.Service{Namespace: name, Name: name, Port: name}
		f.Backend = f.Source
		f.Class, f.ClassReason, f.Protocol, f.Method, f.Path, f.Query, f.Host, f.Detail = name, name, name, name, name, name, name, name
		f.RequestID, f.TraceID, f.Flags = name, name, []flow.Flag{name, "UF"}
	}))
	p := b.open(t, n.url, "#node")
	p.has("#pods", name)
	p.has("#services", name)
	p.has("#cards", name)
	p.has("#alert", name)
	for _, at := range []string{"flows", "map", "why?to=x&from=" + url.QueryEscape(name), "flows"} {
		p.eval("location.hash = "+quote("#"+at), nil)
		p.until("!document.querySelector('#view-" + strings.Split(at, "?")[0] + "').hidden")
		switch at {
		case "map":
			p.has("#map", name[:20])
		case "flows":
		default:
			p.has("#why-answer", name)
			p.until("document.querySelector('#why-answer svg.path')")
			p.until("[...document.querySelectorAll('#known-pods option')].some((o) => o.value.includes(" + quote(name) + "))")
		}
	}
	p.has("#flows tbody", name)
	p.click("#flows tbody button")
	p.has("#flow-body", name)
	p.until("document.querySelector('#flow .chain')")
	var harm struct {
		Harmed bool
		Images int
	}
	p.eval("({ Harmed: 'harmed' in window, Images: document.querySelectorAll('img, main script').length })", &harm)
	if harm.Harmed || harm.Images > 0 {
		t.Errorf("names have become part of the page: %+v", harm)
	}
}

// testKeyboard: all can be done without a mouse.
func testKeyboard(t *testing.T, b *browser) {
	n := start(t)
	n.flows.Add(call("cart", 1), call("cart", 2))
	p := b.open(t, n.url, "#node")
	p.key("Tab", "")
	p.until("document.activeElement.id === 'skip' && document.activeElement.getBoundingClientRect().left >= 0")
	p.key("2", "2")
	p.until("document.querySelectorAll('#flows tbody tr').length === 2")
	p.key("j", "j")
	p.until("document.activeElement.closest('tr')?.textContent.includes('cart-2')")
	p.until("getComputedStyle(document.activeElement).outlineStyle === 'solid'")
	p.key("j", "j")
	p.until("document.activeElement.closest('tr')?.textContent.includes('cart-1')")
	// A new flow does not take the focus away.
	n.flows.Add(call("cart", 3))
	p.has("#flows tbody tr:first-child", "cart-3")
	p.until("document.activeElement.closest('tr')?.textContent.includes('cart-1')")
	p.key("p", "p")
	p.has("#feed-state", "Paused")
	p.key("/", "/")
	p.until("document.activeElement.name === 'namespace'")
	p.key("1", "1")
	p.until("location.hash.startsWith('#flows') && document.activeElement.value === '1'")
	p.eval("document.activeElement.blur()", nil)
	p.key("?", "?")
	p.until("document.querySelector('#help').open")
	p.key("Escape", "")
	p.until("!document.querySelector('#help').open")
	p.key("4", "4")
	p.until("location.hash === '#why' && !document.querySelector('#view-why').hidden")
	p.key("/", "/")
	p.until("document.activeElement.closest('#why-form')")
	// Every field and button says what it is for.
	var unnamed []string
	p.eval(`[...document.querySelectorAll('input, select, button, a, nav, dialog, [role=region]')].filter((e) => !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby'))).map((e) => e.outerHTML)`, &unnamed)
	if len(unnamed) > 0 {
		t.Errorf("without a name: %v", unnamed)
	}
}

// testNarrow: on a narrow screen, tables and the map scroll inside themselves, and the page
// does not.
func testNarrow(t *testing.T, b *browser) {
	n := start(t)
	n.flows.Add(crowd()...)
	p := b.open(t, n.url, "#node")
	for _, width := range []int{360, 720, 1280, 2200} {
		p.size(width, 800)
		for view, shown := range map[string]string{"node": "#pods td", "flows": "#flows td", "map": "#map rect", "why?from=shop/client&to=api:80": "#why-answer svg.path"} {
			p.eval("location.hash = "+quote("#"+view), nil)
			p.until("document.querySelector(" + quote(shown) + ")?.getClientRects().length > 0")
			var over int
			p.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth", &over)
			if over > 0 {
				t.Errorf("%s is %d pixels wider than %d", view, over, width)
			}
		}
	}
}

// testScreenshots makes pictures for people to look at, where it is told to.
func testScreenshots(t *testing.T, b *browser) {
	n := start(t)
	n.flows.Add(call("cart", 1), call("cart", 2), call("cart", 2, broken), call("api", 1), call("db", 1, kernel), call("api", 3))
	p := b.open(t, n.url, "#node")
	p.until("document.querySelectorAll('#services .line').length > 7")
	for _, look := range []struct {
		name, colours string
		width         int
	}{{"light-wide", "light", 1280}, {"dark-wide", "dark", 1280}, {"light-narrow", "light", 360}, {"dark-narrow", "dark", 360}} {
		for _, view := range []string{"node", "flows", "map"} {
			p.eval("location.hash = '#"+view+"'", nil)
			p.until("document.querySelector('" + map[string]string{"node": "#services td", "flows": "#flows td", "map": "#map rect"}[view] + "')?.getClientRects().length > 0")
			p.shot(look.name+"-"+view, look.colours, look.width)
		}
		for _, situation := range []string{"through-envoy", "rule-missing", "not-live", "all-ejected", "wrong-name"} {
			n.answer.Store(&situation)
			p.eval("location.hash = '#why?from=shop/client&to=api:80&x="+situation+look.name+"&flow=1'", nil)
			p.eval("location.hash = '#why'", nil)
			p.has("#why-answer", "Say who")
			p.eval("location.hash = '#why?from=shop/client&to=api:80'", nil)
			p.until("document.querySelector('#why-answer svg.path')")
			p.shot(look.name+"-why-"+situation, look.colours, look.width)
		}
	}
	p.eval("location.hash = '#flows'", nil)
	p.click("#flows tbody tr.failed button")
	p.until("document.querySelector('#flow svg.path')")
	p.shot("light-wide-detail", "light", 1280)
	p.shot("dark-narrow-detail", "dark", 360)
	p.key("Escape", "")
	n.flows.Add(crowd()...)
	p.eval("location.hash = '#map'", nil)
	p.has("#map", "others")
	p.shot("light-wide-crowd", "light", 1280)
	p.shot("dark-narrow-crowd", "dark", 360)
}
