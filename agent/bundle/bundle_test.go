// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nodevoy/nodevoy/agent/ask"
)

func TestSecretsAreTakenOut(t *testing.T) {
	r := newRedactor()
	for _, tt := range []struct{ in, want string }{
		{`token eyJhbGciOiJSUzI1NiIsImtpZCI6.eyJpc3MiOiJrdWJlcm5ldGVz.c2lnbmF0dXJl end`, `token REDACTED end`},
		{`Authorization: Bearer abcdef123456`, `Authorization: REDACTED REDACTED`},
		{`sent "basic dXNlcjpwYXNz"`, `sent "basic REDACTED"`},
		{`{"x-api-key":"s3cr3t-value","a":1}`, `{"x-api-key":"REDACTED","a":1}`},
		{`PASSWORD=hunter2 next`, `PASSWORD=REDACTED next`},
		{`"GET /cart?user=7&card=4111 HTTP/1.1"`, `"GET /cart?REDACTED HTTP/1.1"`},
		{`{"path":"/cart?user=7"}`, `{"path":"/cart?REDACTED"}`},
		{`http://shop/cart?user=7`, `http://shop/cart?REDACTED`},
		{"-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "REDACTED"},
		// What is none.
		{`{"name":"cluster|10.96.0.10:80|http","tokens":3}`, `{"name":"cluster|10.96.0.10:80|http","tokens":3}`},
		{`what became of it? nothing`, `what became of it? nothing`},
	} {
		if got := string(r.text([]byte(tt.in))); strings.ReplaceAll(got, "REDACTED REDACTED", "REDACTED") != strings.ReplaceAll(tt.want, "REDACTED REDACTED", "REDACTED") {
			t.Errorf("%s became\n%s, want\n%s", tt.in, got, tt.want)
		}
	}
}

// answers is an agent that answers all paths but those of bad.
func answers(t *testing.T, bad string) ask.Agent {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == bad:
			http.Error(w, "Envoy does not answer", http.StatusServiceUnavailable)
		case r.URL.Path == "/v1/flows":
			_, _ = io.WriteString(w, `{"items":[{"id":1,"path":"/cart","query":"card=4111"},{"id":2,"path":"/x?card=4111"}],"lost":{}}`)
		case r.URL.Path == "/v1/pods" && r.URL.Query().Get("continue") == "":
			_, _ = io.WriteString(w, `{"items":[{"name":"first"}],"continue":"more"}`)
		case r.URL.Path == "/v1/pods":
			_, _ = io.WriteString(w, `{"items":[{"name":"second"}]}`)
		default:
			fmt.Fprintf(w, `{"path":%q,"token":"abc123"}`, r.URL.Path)
		}
	}))
	t.Cleanup(srv.Close)
	a := ask.New("a", func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	})
	t.Cleanup(a.Close)
	return a
}

// unpack reads an archive.
func unpack(t *testing.T, archive io.Reader) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(archive)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for in := tar.NewReader(zip); ; {
		head, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		files[head.Name] = string(text)
	}
}

func TestTheArchiveHasAllAndSaysWhatIsMissing(t *testing.T) {
	var out bytes.Buffer
	w := New(&out, "dump", time.Unix(1e9, 0))
	all, full := w.Files(t.Context(), "node-a/", answers(t, ""))
	some, less := w.Files(t.Context(), "node-b/", answers(t, "/v1/envoy/stats"))
	nothing, none := w.Files(t.Context(), "node-c/", ask.Absent("c"))
	if full != nil || less == nil || none == nil || all != len(parts()) || some != all-1 || nothing != 0 {
		t.Fatalf("%d, %d, %d files, errors %v, %v, %v", all, some, nothing, full, less, none)
	}
	err := w.Close("v1", []Outcome{{"node-a", Missing(full)}, {"node-b", Missing(less)}, {"node-c", Missing(none)}})
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, &out)
	if want := 2*len(parts()) - 1 + 1; len(files) != want {
		t.Errorf("%d files, want %d", len(files), want)
	}
	for name, text := range files {
		for _, secret := range []string{"4111", "abc123"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %s: %s", name, secret, text)
			}
		}
	}
	if pods := files["dump/node-a/pods.json"]; !strings.Contains(pods, "first") || !strings.Contains(pods, "second") {
		t.Errorf("pods.json has %s", pods)
	}
	if flows := files["dump/node-a/flows.json"]; !strings.Contains(flows, `"/cart"`) || !strings.Contains(flows, `"/x?REDACTED"`) {
		t.Errorf("flows.json has %s", flows)
	}
	var index struct{ Nodes []Outcome }
	if err := json.Unmarshal([]byte(files["dump/index.json"]), &index); err != nil {
		t.Fatal(err)
	}
	if n := index.Nodes; len(n) != 3 || len(n[0].Missing) != 0 || len(n[1].Missing) != 1 || len(n[2].Missing) != 1 ||
		!strings.Contains(n[1].Missing[0], "envoy/stats.txt: request /v1/envoy/stats: 503 Service Unavailable: Envoy does not answer") || !strings.Contains(n[2].Missing[0], "no agent") {
		t.Errorf("the index says %+v", n)
	}
}
