// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// document is the text of one object in a file.
type document struct {
	text []byte
	// line is where it starts, from 1.
	line int
	json bool
}

// split takes a file apart: a JSON text or several, or YAML documents. It
// never fails; what is wrong with a document shows when it is decoded.
func split(data []byte) []document {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if docs, ok := splitJSON(data); ok {
		return docs
	}
	return splitYAML(data)
}

// splitJSON reads a stream of JSON objects; false when the data is not one.
// YAML is ten times as slow, and most of JSON is YAML.
func splitJSON(data []byte) ([]document, bool) {
	if start := bytes.TrimLeft(data, " \t\r\n"); len(start) == 0 || start[0] != '{' {
		return nil, false
	}
	var docs []document
	decoder := json.NewDecoder(bytes.NewReader(data))
	line, counted := 1, int64(0)
	for decoder.More() {
		var text json.RawMessage
		if err := decoder.Decode(&text); err != nil {
			return nil, false
		}
		end := decoder.InputOffset()
		start := end - int64(len(text))
		line += bytes.Count(data[counted:start], []byte("\n"))
		counted = start
		docs = append(docs, document{text: data[start:end], line: line, json: true})
	}
	// More is false before a stray bracket, too.
	rest := bytes.TrimSpace(data[decoder.InputOffset():])
	return docs, len(rest) == 0
}

// splitYAML cuts at the lines that end a document ("...") or start one ("---",
// perhaps with content after it). Such a line can't be inside a document: YAML
// forbids it even in block scalars.
func splitYAML(data []byte) []document {
	var docs []document
	start, startLine := 0, 1
	cut := func(end int) {
		text := data[start:end]
		for {
			blank, rest, found := bytes.Cut(text, []byte("\n"))
			if !found || len(bytes.TrimSpace(blank)) > 0 {
				break
			}
			text, startLine = rest, startLine+1
		}
		if len(bytes.TrimSpace(text)) > 0 {
			docs = append(docs, document{text: text, line: startLine})
		}
	}
	for offset, line := 0, 1; offset < len(data); line++ {
		next := len(data)
		if i := bytes.IndexByte(data[offset:], '\n'); i >= 0 {
			next = offset + i + 1
		}
		if isMarker(data[offset:next]) {
			cut(offset)
			// What follows the marker on its line belongs to the document.
			start, startLine = offset+len("---"), line
		}
		offset = next
	}
	cut(len(data))
	return docs
}

func isMarker(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || bytes.IndexByte([]byte(" \t\r\n"), line[3]) >= 0
}

// at says where in its file the document is.
func (d document) at() string { return "line " + strconv.Itoa(d.line) }
