// SPDX-License-Identifier: Apache-2.0

package files

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"go.yaml.in/yaml/v2"
)

// document is the text of one object in a file, or of a List.
type document struct {
	text []byte
	// line is where it starts, from 1.
	line int
	json bool
}

// at says where in its file the document is.
func (d document) at() string { return "line " + strconv.Itoa(d.line) }

// split takes a file apart: a JSON text or several, or YAML documents. The
// error is about the file as such, of which nothing can be told then; what is
// wrong with one document shows when it is decoded.
func split(data []byte) ([]document, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // UTF-8's own mark
	if err := checkText(data); err != nil {
		return nil, err
	}
	if docs, ok := splitJSON(data); ok {
		return docs, nil
	}
	return splitYAML(data), nil
}

// checkText refuses what a YAML library may read differently from what the
// separation into documents does: documents would be lost without a word.
func checkText(data []byte) error {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")), bytes.IndexByte(data, 0) >= 0:
		return errors.New("is not UTF-8 text (it looks like UTF-16 or binary data)")
	case !utf8.Valid(data):
		return errors.New("is not UTF-8 text")
	}
	for i, line := 0, 1; i < len(data); i++ {
		switch {
		case data[i] == '\n':
			line++
		case data[i] == '\r' && (i+1 == len(data) || data[i+1] != '\n'):
			return fmt.Errorf("line %d: a carriage return without a line feed: lines must end with LF or CRLF", line)
		}
	}
	return nil
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

// splitYAML separates documents as kubectl does, at lines of "---"; other than with
// kubectl, a document may begin on such a line, as YAML has it.
func splitYAML(data []byte) []document {
	var docs []document
	begun, number := false, 0
	for line := range bytes.Lines(data) {
		number++
		separates, blank := separator(line)
		begun = begun && !separates
		if !begun && blank {
			continue
		}
		if !begun {
			docs = append(docs, document{line: number})
			begun = true
		}
		doc := &docs[len(docs)-1]
		doc.text = append(doc.text, line...)
	}
	return docs
}

// separator says whether the line separates documents, and whether it has nothing
// of a document.
func separator(line []byte) (separates, blank bool) {
	rest, marked := bytes.CutPrefix(line, []byte("---"))
	content := bytes.TrimSpace(rest)
	if !marked || len(content) == 0 {
		return marked, len(content) == 0
	}
	comment := content[0] == '#'
	return comment || rest[0] == ' ' || rest[0] == '\t', comment
}

// checkSingle refuses a text that holds a second document for the YAML library,
// which would not be read: after a line of "...", or a line break that only
// YAML knows.
func checkSingle(text []byte) error {
	if !bytes.Contains(text, []byte("---")) && !bytes.Contains(text, []byte("...")) {
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var ignored any
	if err := decoder.Decode(&ignored); err != nil {
		return nil //nolint:nilerr // Said better where the document is converted.
	}
	if err := decoder.Decode(&ignored); !errors.Is(err, io.EOF) {
		return errors.New(`holds another document: documents must be separated by lines of "---"`)
	}
	return nil
}
