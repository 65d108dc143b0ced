// SPDX-License-Identifier: Apache-2.0

package envoyadmin

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// secretKeys are the keys of a configuration dump whose values are never passed on: TLS
// secrets, and whatever a transport socket or an extension would have to be kept. Envoy
// hides most of them itself; nodevoy's own configuration has none.
func secretKeys() map[string]bool {
	return map[string]bool{
		"static_secrets": true, "dynamic_active_secrets": true, "dynamic_warming_secrets": true, "secret": true,
		"private_key": true, "private_key_provider": true, "pkcs12": true, "password": true, "session_ticket_keys": true,
		"generic_secret": true, "token_secret": true, "hmac_secret": true, "credential": true, "credentials": true,
	}
}

// redactedText stands for a secret.
const redactedText = "[redacted]"

// redacted is JSON with its secrets replaced, read as it is asked for: a configuration
// dump may be too large to hold.
func redacted(in io.ReadCloser) io.ReadCloser {
	out, to := io.Pipe()
	go func() {
		buffered := bufio.NewWriterSize(to, 64<<10)
		err := redact(in, buffered)
		to.CloseWithError(errors.Join(err, buffered.Flush(), in.Close()))
	}()
	return out
}

// redact copies one JSON value.
func redact(in io.Reader, out io.Writer) error {
	r := redactor{in: json.NewDecoder(in), out: out, secrets: secretKeys()}
	r.in.UseNumber()
	if err := r.value(); err != nil {
		return fmt.Errorf("read envoy's configuration dump: %w", err)
	}
	return nil
}

type redactor struct {
	in      *json.Decoder
	out     io.Writer
	secrets map[string]bool
}

// value copies the next value.
func (r *redactor) value() error {
	token, err := r.in.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		return r.inside('{', '}', r.member)
	case json.Delim('['):
		return r.inside('[', ']', r.value)
	}
	return r.write(token)
}

// inside copies what one is called for until the end of an object or a list.
func (r *redactor) inside(open, end byte, one func() error) error {
	separator := open
	for r.in.More() {
		if err := r.text([]byte{separator}); err != nil {
			return err
		}
		separator = ','
		if err := one(); err != nil {
			return err
		}
	}
	if _, err := r.in.Token(); err != nil {
		return err
	}
	if separator == open {
		return r.text([]byte{open, end})
	}
	return r.text([]byte{end})
}

// member copies a key and its value, unless that is secret.
func (r *redactor) member() error {
	key, err := r.in.Token()
	if err != nil {
		return err
	}
	if err := errors.Join(r.write(key), r.text([]byte{':'})); err != nil {
		return err
	}
	name, _ := key.(string)
	if !r.secrets[name] {
		return r.value()
	}
	if err := r.write(redactedText); err != nil {
		return err
	}
	skip := redactor{in: r.in, out: io.Discard}
	return skip.value()
}

func (r *redactor) write(token json.Token) error {
	text, err := json.Marshal(token)
	if err != nil {
		return err
	}
	return r.text(text)
}

func (r *redactor) text(text []byte) error {
	_, err := r.out.Write(text)
	return err
}
