// SPDX-License-Identifier: Apache-2.0

package envoyadmin

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestRedact: what may be secret is replaced, whatever it is, and everything else is as it
// was.
func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		`{"configs":[{"@type":"x","n":1.50,"big":18446744073709551615,"t":true,"z":null,"e":{},"l":[],"s":"<a>\u2028"}, [1, [2]]]}`://
		`{"configs":[{"@type":"x","n":1.50,"big":18446744073709551615,"t":true,"z":null,"e":{},"l":[],"s":"\u003ca\u003e\u2028"},[1,[2]]]}`,
		`{"dynamic_active_secrets":[{"name":"n","secret":{"tls_certificate":"KEY"}}],"a":1}`:                                 `{"dynamic_active_secrets":"[redacted]","a":1}`,
		`{"configs":[{"secret":{"generic_secret":{"secret":{"inline_string":"KEY"}}}}]}`:                                     `{"configs":[{"secret":"[redacted]"}]}`,
		`{"tls_certificates":[{"certificate_chain":{"filename":"/c"},"private_key":{"inline_string":"KEY"}}],"password":{}}`: `{"tls_certificates":[{"certificate_chain":{"filename":"/c"},"private_key":"[redacted]"}],"password":"[redacted]"}`,
		`{"private_key":["KEY"],"x":{"password":"KEY"}}`:                                                                     `{"private_key":"[redacted]","x":{"password":"[redacted]"}}`,
		`[]`: `[]`,
	} {
		var out bytes.Buffer
		if err := redact(strings.NewReader(in), &out); err != nil || out.String() != want {
			t.Errorf("%s\n got %s\nwant %s\n%v", in, &out, want, err)
		}
	}
}

// TestBrokenDumpIsAnError, so that nobody takes it for a whole one.
func TestBrokenDumpIsAnError(t *testing.T) {
	for _, in := range []string{``, `{"a":[1,`, `{"a"`, `{"private_key":{"x"`, `{"a":1]`, `nonsense`} {
		if text, err := io.ReadAll(redacted(io.NopCloser(strings.NewReader(in)))); err == nil {
			t.Errorf("%s: %s and no error", in, text)
		}
	}
}

// endless has no end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
func (endless) Close() error               { return nil }

func TestPageIsBounded(t *testing.T) {
	n, err := io.Copy(io.Discard, &bounded{ReadCloser: endless{}, left: 1000})
	if !errors.Is(err, errTooLarge) || n > 1000 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if n, err := io.Copy(io.Discard, &bounded{ReadCloser: io.NopCloser(strings.NewReader("x")), left: 1}); n != 1 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
