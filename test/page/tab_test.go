// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// tab is a tab of the browser, of a profile of its own. It notes what the page complains
// of and whom it asks.
type tab struct {
	*testing.T
	b       *browser
	session string
	// at is the address of the page's server.
	at string

	mu        sync.Mutex
	errors    []string
	strangers []string
}

type object = map[string]any

// open opens a page. At the end of the test, the page must have complained of nothing but
// what has one of the texts expected in it, and have asked nobody else for anything.
func (b *browser) open(t *testing.T, at, hash string, expected ...string) *tab {
	t.Helper()
	var profile struct{ BrowserContextID string }
	must(t, b.call(t.Context(), "", "Target.createBrowserContext", object{}, &profile))
	var target struct{ TargetID string }
	must(t, b.call(t.Context(), "", "Target.createTarget", object{"url": "about:blank", "browserContextId": profile.BrowserContextID}, &target))
	var attached struct{ SessionID string }
	must(t, b.call(t.Context(), "", "Target.attachToTarget", object{"targetId": target.TargetID, "flatten": true}, &attached))
	p := &tab{T: t, b: b, session: attached.SessionID, at: at}
	b.mu.Lock()
	b.tabs[p.session] = p
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.call(domain+".enable", object{}, nil)
	}
	p.call("Emulation.setScrollbarsHidden", object{"hidden": true}, nil)
	p.size(1280, 900)
	p.call("Page.navigate", object{"url": at + "/" + hash}, nil)
	p.until(`document.readyState === 'complete' && document.querySelector('nav [aria-current]') !== null`)
	t.Cleanup(func() { p.close(profile.BrowserContextID, expected) })
	return p
}

func (p *tab) close(profile string, expected []string) {
	if err := p.b.call(context.Background(), "", "Target.disposeBrowserContext", object{"browserContextId": profile}, nil); err != nil {
		p.Error(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, said := range p.errors {
		known := false
		for _, text := range expected {
			known = known || strings.Contains(said, text)
		}
		if !known {
			p.Errorf("the page says: %s", said)
		}
	}
	if len(p.strangers) > 0 {
		p.Errorf("the page asks other origins: %v", p.strangers)
	}
}

func (p *tab) call(method string, params, result any) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	must(p.T, p.b.call(ctx, p.session, method, params, result))
}

// event notes errors, violations of the page's policy, and requests.
func (p *tab) event(m message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch m.Method {
	case "Runtime.exceptionThrown":
		p.errors = append(p.errors, string(m.Params))
	case "Runtime.consoleAPICalled", "Log.entryAdded":
		var said struct {
			Type  string
			Entry struct{ Level string }
		}
		if json.Unmarshal(m.Params, &said) != nil || said.Type == "error" || said.Type == "warning" || said.Entry.Level == "error" {
			p.errors = append(p.errors, string(m.Params))
		}
	case "Network.requestWillBeSent":
		var sent struct{ Request struct{ URL string } }
		if json.Unmarshal(m.Params, &sent) != nil {
			return
		}
		u, err := url.Parse(sent.Request.URL)
		if err != nil || u.Scheme != "data" && u.Scheme+"://"+u.Host != p.at {
			p.strangers = append(p.strangers, sent.Request.URL)
		}
	}
}

// eval evaluates an expression of JavaScript, and waits for it if it is a promise.
func (p *tab) eval(expression string, result any) {
	p.Helper()
	var answer struct {
		Result struct {
			Value json.RawMessage
		}
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	p.call("Runtime.evaluate", object{"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true}, &answer)
	if e := answer.ExceptionDetails; e != nil {
		p.Fatalf("%s: %s", expression, e.Exception.Description)
	}
	if result != nil {
		must(p.T, json.Unmarshal(answer.Result.Value, result))
	}
}

// until waits for an expression to be true.
func (p *tab) until(expression string) {
	p.Helper()
	var ok bool
	p.eval(`new Promise((done) => {
		const end = performance.now() + 30_000;
		const look = () => {
			let is = false;
			try { is = Boolean(`+expression+`); } catch {}
			if (is || performance.now() > end) done(is);
			else setTimeout(look, 10);
		};
		look();
	})`, &ok)
	if !ok {
		var at string
		p.eval("location.hash + ' ' + document.activeElement.outerHTML.slice(0, 200)", &at)
		p.Fatalf("never so: %s\nthe page is at %s\nand has: %s", expression, at, p.text("body"))
	}
}

// text is what an element shows.
func (p *tab) text(selector string) (text string) {
	p.Helper()
	p.eval("document.querySelector("+quote(selector)+")?.innerText ?? ''", &text)
	return text
}

// has waits for an element to show a text.
func (p *tab) has(selector, text string) {
	p.Helper()
	p.until("document.querySelector(" + quote(selector) + ").textContent.includes(" + quote(text) + ")")
}

// value changes a field as a person does.
func (p *tab) value(selector, value string) {
	p.Helper()
	p.eval(`(() => {
		const field = document.querySelector(`+quote(selector)+`);
		field.value = `+quote(value)+`;
		field.dispatchEvent(new Event('change', { bubbles: true }));
	})()`, nil)
}

func (p *tab) click(selector string) {
	p.Helper()
	p.until("document.querySelector(" + quote(selector) + ")")
	p.eval("document.querySelector("+quote(selector)+").dispatchEvent(new MouseEvent('click', { bubbles: true, cancelable: true })), null", nil)
}

// key presses a key; text is what it types, if it does.
func (p *tab) key(key, text string) {
	p.Helper()
	// Some keys do what they do by their number alone.
	number := map[string]int{"Escape": 27, "Tab": 9}[key]
	p.call("Input.dispatchKeyEvent", object{"type": "keyDown", "key": key, "code": key, "text": text, "windowsVirtualKeyCode": number}, nil)
	p.call("Input.dispatchKeyEvent", object{"type": "keyUp", "key": key, "code": key}, nil)
}

func (p *tab) size(width, height int) {
	p.Helper()
	p.call("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
}

// shot writes a picture of the whole page to the directory that is named in the
// environment, if one is.
func (p *tab) shot(name, colours string, width int) {
	p.Helper()
	dir := os.Getenv("NODEVOY_SCREENSHOTS")
	if dir == "" {
		return
	}
	p.size(width, 900)
	p.call("Emulation.setEmulatedMedia", object{"features": []object{{"name": "prefers-color-scheme", "value": colours}, {"name": "prefers-reduced-motion", "value": "reduce"}}}, nil)
	p.eval("new Promise((done) => setTimeout(done, 300))", nil)
	var picture struct{ Data []byte }
	p.call("Page.captureScreenshot", object{"captureBeyondViewport": true}, &picture)
	must(p.T, os.WriteFile(filepath.Join(dir, name+".png"), picture.Data, 0o644))
}

func quote(text string) string {
	out, _ := json.Marshal(text) // Text can always be written.
	return string(out)
}
