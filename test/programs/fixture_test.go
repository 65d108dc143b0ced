// SPDX-License-Identifier: Apache-2.0

package programs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/nodevoy/nodevoy/test/lab"
)

// fixture is a lab: two clients on one node, of which one is enrolled, and on the other
// node a pod for each server.
type fixture struct {
	*lab.Lab
	node           *lab.Node
	client, direct *lab.Pod
	servers        map[string]*server
	agent          *lab.Agent
	envoy          *lab.Envoy
	mode           lab.Mode
	numbers        int
}

// server is a program that runs.
type server struct {
	program
	pod     *lab.Pod
	process *lab.Process
	// at are the cluster IPs of its ports.
	at []netip.AddrPort
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	on := true
	l := must(lab.New(lab.Options{Mode: lab.Host, BridgeNetfilter: &on}))(t)
	w := &fixture{Lab: l, servers: map[string]*server{}}
	t.Cleanup(func() {
		if t.Failed() && w.envoy != nil {
			t.Logf("the end of Envoy's log:\n%s", w.envoy.LogEnd(15))
		}
		check(t, l.Close())
	})
	w.node = must(l.AddNode("node-a"))(t)
	l.Objects().SetNamespace("enrolled", map[string]string{"nodevoy.io/redirect": "enabled"})
	l.Objects().SetNamespace("direct", nil)
	l.Objects().SetNamespace("servers", nil)
	w.client = must(w.node.AddPod("enrolled", "client", nil))(t)
	w.direct = must(w.node.AddPod("direct", "outsider", nil))(t)
	return w
}

// serve starts programs and returns when they work.
func (w *fixture) serve(t *testing.T, programs []program) {
	t.Helper()
	node := must(w.AddNode("node-b"))(t)
	for _, p := range programs {
		s := &server{program: p, pod: must(node.AddPod("servers", p.name, nil))(t)}
		w.servers[p.name] = s
		dir := filepath.Join(dataDir, p.name)
		check(t, os.MkdirAll(dir, 0o755))
		s.process = must(s.pod.Start(p.name+".log", "sh", "-c", "DIR="+dir+"; export DIR; cd $DIR; "+p.start))(t)
		for i, port := range p.ports {
			s.at = append(s.at, w.setService(s, i, port))
		}
	}
	check(t, w.Publish(limit(t, time.Minute)))
	for _, p := range programs {
		w.untilReady(t, w.servers[p.name])
	}
}

// setService makes the Service of one of a server's ports and returns its address.
func (w *fixture) setService(s *server, i int, p port) netip.AddrPort {
	w.numbers++
	ip := netip.AddrFrom4([4]byte{10, 96, byte(w.numbers / 200), byte(1 + w.numbers%200)})
	target := s.listen
	if p.target != 0 {
		target = p.target
	}
	spec := corev1.ServicePort{Name: p.name, Port: p.number, TargetPort: intstr.FromInt32(target), Protocol: corev1.ProtocolTCP}
	if p.app != "" {
		spec.AppProtocol = &p.app
	}
	w.Objects().SetService(lab.Service{
		Namespace: "servers", Name: fmt.Sprintf("%s-%d", s.name, i+1), IPs: []netip.Addr{ip}, Ports: []corev1.ServicePort{spec}, Pods: []*lab.Pod{s.pod},
	})
	return netip.AddrPortFrom(ip, uint16(p.number))
}

// untilReady waits until the server answers its first call, at the pod's own address.
func (w *fixture) untilReady(t *testing.T, s *server) {
	t.Helper()
	at := netip.AddrPortFrom(s.pod.IPs[0], uint16(s.listen))
	err := lab.Until(limit(t, 90*time.Second), s.name+" to be ready", func() error {
		select {
		case <-s.process.Ended():
			t.Fatalf("%s has ended:\n%s", s.name, s.process.Output())
		default:
		}
		got, err := w.run(t, w.direct, s, s.calls[0], at)
		if err == nil && got.status != 0 {
			err = errors.New(got.output)
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v; its output:\n%s", err, s.process.Output())
	}
	t.Logf("%s is ready", s.name)
}

// start starts agent and Envoy in a mode, and returns when the client is redirected.
func (w *fixture) start(t *testing.T, mode lab.Mode) {
	t.Helper()
	w.mode = mode
	w.SetMode(mode)
	w.agent = must(w.node.StartAgent())(t)
	w.envoy = must(w.node.StartEnvoy(limit(t, time.Minute)))(t)
	must(w.agent.WaitRedirected(limit(t, time.Minute), w.client))(t)
}

// stop ends both.
func (w *fixture) stop(t *testing.T) {
	t.Helper()
	check(t, errors.Join(w.agent.Stop(20*time.Second), w.envoy.Kill()))
}

// outcome is what a client printed, how it ended, and how long it took.
type outcome struct {
	output string
	status int
	took   time.Duration
}

func (o outcome) String() string { return fmt.Sprintf("exit %d, %q", o.status, shorten(o.output)) }

// shorten cuts a long text.
func shorten(text string) string {
	const most = 1500
	if len(text) <= most {
		return text
	}
	return text[:most] + fmt.Sprintf("... (%d bytes)", len(text))
}

// run runs a client of the server in a pod, against an address.
func (w *fixture) run(t *testing.T, from *lab.Pod, s *server, c call, at netip.AddrPort) (outcome, error) {
	t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "export HOST=%s PORT=%d DIR=%s", at.Addr(), at.Port(), filepath.Join(dataDir, s.name))
	for name, other := range w.servers {
		fmt.Fprintf(&text, " %s=%s", name, other.pod.IPs[0])
	}
	ctx := limit(t, 2*callSeconds*time.Second)
	start := time.Now()
	// timeout also ends what the shell has started.
	output, err := from.Run(ctx, "timeout", strconv.Itoa(callSeconds), "sh", "-c", text.String()+"; "+c.run)
	got := outcome{output: output, took: time.Since(start)}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got.status, err = exit.ExitCode(), nil
	}
	return got, err
}

// callSeconds is longer than any client takes. timeout(1) ends one with status 124.
const callSeconds = 15

func limit(t *testing.T, within time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)
	return ctx
}

// must unwraps a value and its error; the error ends the test.
func must[T any](value T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return value
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
