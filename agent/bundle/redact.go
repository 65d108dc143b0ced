// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"regexp"
)

// removed stands for what was taken out.
const removed = "REDACTED"

// redactor replaces what looks like a credential or the query of a URL.
type redactor struct {
	rules []rule
}

type rule struct {
	pattern *regexp.Regexp
	by      []byte
}

func newRedactor() *redactor {
	replace := func(pattern, by string) rule { return rule{regexp.MustCompile(pattern), []byte(by)} }
	const named = `(?i)(["']?[\w.-]*(?:password|passwd|secret|token|api[_-]?key|authorization|cookie)["']?\s*[:=]\s*)`
	return &redactor{rules: []rule{
		// JSON Web Tokens, as of service accounts.
		replace(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)?`, removed),
		replace(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}`, "$1 "+removed),
		replace(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----`, removed),
		// As settings, headers and JSON have them: name=value, name: value, "name":"value".
		replace(named+`"[^"]{3,}"`, "${1}\""+removed+"\""),
		replace(named+`'[^']{3,}'`, "${1}'"+removed+"'"),
		replace(named+`[^\s"',;{}\[\]]{3,}`, "${1}"+removed),
		// Queries of URLs and of paths.
		replace(`((?:https?://[^\s"'?]+|"/[^\s"'?]*|\s/[^\s"'?]*))\?[^\s"']+`, "$1?"+removed),
	}}
}

// text redacts a text of any kind.
func (r *redactor) text(in []byte) []byte {
	for _, one := range r.rules {
		in = one.pattern.ReplaceAll(in, one.by)
	}
	return in
}

// flows takes out of flows in JSON what callers sent beside the path.
func (r *redactor) flows(in []byte) ([]byte, error) {
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(in, &answer); err != nil {
		return nil, err
	}
	var items []map[string]any
	if err := json.Unmarshal(answer["items"], &items); err != nil {
		return nil, err
	}
	for _, item := range items {
		delete(item, "query")
	}
	kept, err := json.Marshal(items)
	if err != nil {
		return nil, err
	}
	answer["items"] = kept
	out, err := json.Marshal(answer)
	return r.text(out), err
}
