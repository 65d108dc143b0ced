// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	filterstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/nodevoy/nodevoy/xds/server"
)

// sourceServers answer, each with the IP that the connection comes from: HTTP
// of both versions on port 8080, and TCP on port 5000, of 10.244.0.1 and
// fd00:244::1, and TCP of 10.244.0.2.
func sourceServers(t *testing.T) {
	t.Helper()
	source := func(address string) string {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			t.Error(err)
		}
		return host
	}
	for _, host := range []string{"10.244.0.1", "fd00:244::1"} {
		sourceWeb(t, net.JoinHostPort(host, "8080"), source)
	}
	for _, host := range []string{"10.244.0.1", "10.244.0.2", "fd00:244::1"} {
		sourceTCP(t, net.JoinHostPort(host, "5000"), source)
	}
}

func sourceWeb(t *testing.T, address string, source func(string) string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, source(r.RemoteAddr)) }),
		Protocols: &http.Protocols{},
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = server.Serve(l) }() // Ends with Close, by an error that says so.
	t.Cleanup(func() { _ = server.Close() })
}

// sourceTCP gives one answer for each message.
func sourceTCP(t *testing.T, address string, source func(string) string) {
	t.Helper()
	serveTCP(t, address, func(c net.Conn) {
		buf := make([]byte, 1024)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			_, _ = io.WriteString(c, source(c.RemoteAddr().String())) // The client sees what is missing.
		}
	})
}

// sourceServices lead to the sourceServers, in each class and family.
func sourceServices() []service {
	return []service{
		{"web", "10.96.1.10:80", []string{"10.244.0.1:8080"}},
		{"db", "10.96.2.10:5000", []string{"10.244.0.1:5000"}},
		{"other", "10.96.2.11:5000", []string{"10.244.0.2:5000"}},
		{"auto", "10.96.3.10:80", []string{"10.244.0.1:8080"}},
		{"autodb", "10.96.3.11:5000", []string{"10.244.0.1:5000"}},
		{"web6", "[fd00:96:1::10]:80", []string{"[fd00:244::1]:8080"}},
		{"db6", "[fd00:96:2::10]:5000", []string{"[fd00:244::1]:5000"}},
		{"auto6", "[fd00:96:3::10]:80", []string{"[fd00:244::1]:8080"}},
		{"autodb6", "[fd00:96:3::11]:5000", []string{"[fd00:244::1]:5000"}},
	}
}

// question is what a sourceServer is asked by TCP. It begins as HTTP can't, so
// that nothing waits for more of it.
const question = "\x00who am I?"

// way is a way to ask a server something and get the answer, over one
// connection that is kept until end.
type way struct {
	ask func() (string, error)
	end func()
}

// asks are the ways to call the sourceServers of one family from a pod.
func (p *pod) ways(v6 bool) map[string]way {
	web, auto, db, autodb := "10.96.1.10:80", "10.96.3.10:80", "10.96.2.10:5000", "10.96.3.11:5000"
	if v6 {
		web, auto, db, autodb = "[fd00:96:1::10]:80", "[fd00:96:3::10]:80", "[fd00:96:2::10]:5000", "[fd00:96:3::11]:5000"
	}
	over := func(h2 bool, address string) way {
		client := p.client(h2)
		ask := func() (string, error) {
			code, body, err := readAll(client.Get("http://" + address + "/"))
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("status %d", code)
			}
			return body, err
		}
		return way{ask, client.CloseIdleConnections}
	}
	raw := func(address string) way {
		var c net.Conn
		ask := func() (string, error) {
			if c == nil {
				c = p.dial(address)
			}
			buf := make([]byte, 100)
			if _, err := io.WriteString(c, question); err != nil {
				return "", err
			}
			n, err := c.Read(buf)
			return string(buf[:n]), err
		}
		return way{ask, func() { _ = c.Close() }}
	}
	return map[string]way{
		"HTTP/1": over(false, web), "h2c": over(true, web), "TCP": raw(db),
		"detected HTTP/1": over(false, auto), "detected h2c": over(true, auto), "detected TCP": raw(autodb),
	}
}

// checkSources calls the servers from each pod in turn, several times, and
// wants each call to come from that pod's own address.
func checkSources(v6 bool, pods ...*pod) error {
	own := func(p *pod) string { return p.v4 }
	if v6 {
		own = func(p *pod) string { return p.v6 }
	}
	ways := make([]map[string]way, len(pods))
	for i, p := range pods {
		ways[i] = p.ways(v6)
	}
	for round := range 4 {
		for name := range ways[0] {
			for i, p := range pods {
				got, err := ways[i][name].ask()
				if err != nil {
					return fmt.Errorf("round %d, %s from %s: %w", round, name, p.target.Pod, err)
				}
				if got != own(p) {
					return fmt.Errorf("round %d, %s from %s: the server sees %q, want %s", round, name, p.target.Pod, got, own(p))
				}
			}
		}
	}
	return nil
}

// TestPodSources: what a server sees is the address of the pod that called, by
// each protocol, and of each family, also when two pods call one server over
// connections that are kept and have one worker.
func TestPodSources(t *testing.T) {
	sourceServers(t)
	a, b := newPod(t, "pod-a", 2), newPod(t, "pod-b", 3)
	six := newPod(t, "pod-six", 4)
	six.target.V4 = false
	r := newFixtureWith(t, nodeOf(t, sourceServices()...), setup{pods: []*pod{a, b, six}})
	if err := checkSources(false, a, b); err != nil {
		t.Error(err)
	}
	if err := checkSources(true, a, b, six); err != nil {
		t.Error(err)
	}
	if st := r.server.Status(); st.NackCount != 0 || st.Refused.Any() || st.Version.String() != "1.40.0" {
		t.Errorf("refused %v, Envoy %s: %+v", st.Refused, st.Version, st.Nacks)
	}
	// That there is nobody at the unknown frontend is said as in host mode.
	if code, _, err := a.get("10.96.1.66:80"); err != nil || code != http.StatusServiceUnavailable {
		t.Errorf("unknown frontend: %d, %v; want 503", code, err)
	}
	if got, err := a.say("10.96.2.66:5000", "x"); got != "" {
		t.Errorf("unknown frontend: %q, %v; want the connection closed", got, err)
	}
}

// unhashed has the network namespace kept as text that is not hashed.
func unhashed(_ string, m proto.Message) {
	l, ok := m.(*listenerv3.Listener)
	if !ok {
		return
	}
	for _, chain := range l.GetFilterChains() {
		for _, f := range chain.GetFilters() {
			state := &filterstatev3.Config{}
			if f.GetName() != "state" || f.GetTypedConfig().UnmarshalTo(state) != nil {
				continue
			}
			for _, value := range state.GetOnNewConnection() {
				if value.GetFactoryKey() == "envoy.hashable_string" {
					value.FactoryKey = "envoy.string"
				}
			}
			if packed, err := anypb.New(state); err == nil {
				f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed}
			}
		}
	}
}

// TestPodSourcesNeedTheHash: TestPodSources would see it if connections to
// backends were shared across pods, as they are without the hash.
func TestPodSourcesNeedTheHash(t *testing.T) {
	sourceServers(t)
	a, b := newPod(t, "pod-a", 2), newPod(t, "pod-b", 3)
	newFixtureWith(t, nodeOf(t, sourceServices()...), setup{pods: []*pod{a, b}, options: []server.Option{server.Override(unhashed)}})
	err := checkSources(false, a, b)
	if err == nil {
		t.Error("connections to backends are not shared across pods")
	}
	t.Log(err)
}

// TestPodCallsItself: a pod may be the backend of a Service that it calls.
func TestPodCallsItself(t *testing.T) {
	a := newPod(t, "pod-a", 2)
	var services []service
	for i, host := range []string{a.v4, a.v6} {
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })}
		l := a.listen(net.JoinHostPort(host, "8080"))
		go func() { _ = server.Serve(l) }() // Ends with Close, by an error that says so.
		t.Cleanup(func() { _ = server.Close() })
		frontend := []string{"10.96.1.10:80", "[fd00:96:1::10]:80"}[i]
		services = append(services, service{fmt.Sprintf("own%d", i), frontend, []string{l.Addr().String()}})
	}
	newFixtureWith(t, nodeOf(t, services...), setup{pods: []*pod{a}})
	for i, host := range []string{a.v4, a.v6} {
		code, body, err := a.get(services[i].frontend)
		if source, _, _ := net.SplitHostPort(body); code != http.StatusOK || source != host {
			t.Errorf("%s: %d %q, %v; want 200 and %s", services[i].frontend, code, body, err, host)
		}
	}
}
