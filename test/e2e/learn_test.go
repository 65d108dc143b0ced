// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

// TestLearns: the first connection to a port that declares nothing decides its class on the
// node, for each agent that comes after.
func TestLearns(t *testing.T) { each(t, modes(), testLearns) }

func testLearns(t *testing.T, w *fixture) {
	const ip, tlsPort = "10.96.0.40", 7443
	check(t, w.serveTLS(t, w.web[1], tlsPort))
	w.Objects().SetService(lab.Service{
		Namespace: "shop", Name: "learn", IPs: addrs(ip), Pods: w.web[1:2],
		Ports: []corev1.ServicePort{
			lab.Port("http", 80, echo.HTTPPort), lab.Port("http-secured", 81, tlsPort), lab.Port("web", 82, echo.TCPPort), lab.Port("web-ui", 83, echo.HTTPPort),
		},
	})
	check(t, w.Publish(limit(t)))
	w.start(t)
	calls := func() {
		t.Helper()
		for port, protocol := range map[string]string{":80": echo.HTTP1, ":82": echo.TCP, ":83": echo.HTTP1} {
			r := call(t, w.client, echo.Spec{Protocol: protocol, Target: ip + port, Requests: 5, Fresh: true, Timeout: 5 * time.Second})
			if r.Failed > 0 {
				t.Errorf("port %s: %d calls failed: %v", port, r.Failed, r.Errors)
			}
			w.allThroughEnvoy(t, r)
		}
		got, err := w.client.Run(limit(t), "sh", "-c", "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -connect "+ip+":81 2>/dev/null")
		if err != nil || !strings.Contains(got, "HTTP/1.0 200 ok") {
			t.Errorf("TLS to a port named http: %v, %q", err, got)
		}
	}
	want := map[string][2]string{
		"80": {"http", "port name http, and HTTP was seen"},
		"81": {"tcp", "port name http-secured, but TLS was seen"},
		"82": {"tcp", "no declared protocol, and what was seen is not HTTP; appProtocol declares it"},
		"83": {"detect", "no declared protocol, HTTP likely: name web-ui"},
	}
	calls()
	w.untilLearned(t, ip, want)
	calls()
	check(t, w.agent.Stop(endLimit))
	w.startAgent(t)
	w.untilSettled(t)
	w.untilLearned(t, ip, want)
	calls()
}

// serveTLS has a pod answer HTTP by TLS on a port.
func (w *fixture) serveTLS(t *testing.T, pod *lab.Pod, port int) error {
	t.Helper()
	key, cert := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "cert")
	if _, err := pod.Run(limit(t), "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
		"-subj", "/CN=shop", "-keyout", key, "-out", cert); err != nil {
		return err
	}
	if _, err := pod.Start("tls.log", "openssl", "s_server", "-accept", fmt.Sprint(port), "-key", key, "-cert", cert, "-www", "-quiet"); err != nil {
		return err
	}
	return lab.Until(limit(t), "the TLS server", func() error {
		_, err := pod.Run(limit(t), "bash", "-c", fmt.Sprintf("</dev/tcp/127.0.0.1/%d", port))
		return err
	})
}

// untilLearned waits until the status has these classes and reasons of the frontends of a
// cluster IP, by port, and the kernel the same classes.
func (w *fixture) untilLearned(t *testing.T, ip string, want map[string][2]string) {
	t.Helper()
	check(t, lab.Until(limit(t), "the classes", func() error {
		s, err := w.node.Status(t.Context())
		if err != nil {
			return err
		}
		got := map[string][2]string{}
		for _, f := range s.Frontends {
			if port, is := strings.CutPrefix(f.Address, ip+":"); is {
				got[port] = [2]string{f.Class, f.Why}
			}
		}
		for port, is := range want {
			if got[port] != is {
				return fmt.Errorf("port %s: %q, want %q", port, got[port], is)
			}
			if _, err := w.netns().Run(t.Context(), "ipset", "test", "nodevoy-"+is[0]+"4", ip+",tcp:"+port); err != nil {
				return fmt.Errorf("the kernel, port %s: %w", port, err)
			}
		}
		return nil
	}))
}
