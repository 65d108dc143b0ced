// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Writer writes an archive, a tar file compressed by gzip. Its methods may be called
// concurrently.
type Writer struct {
	root     string
	now      time.Time
	redactor *redactor

	mu  sync.Mutex
	zip *gzip.Writer
	tar *tar.Writer
}

// New begins an archive, all of whose files are in the directory root.
func New(to io.Writer, root string, now time.Time) *Writer {
	zip := gzip.NewWriter(to)
	return &Writer{root: root, now: now, redactor: newRedactor(), zip: zip, tar: tar.NewWriter(zip)}
}

// Add writes a file that is redacted already, or has nothing to be redacted.
func (w *Writer) Add(name string, text []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	head := &tar.Header{Name: w.root + "/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: w.now, Typeflag: tar.TypeReg}
	if err := w.tar.WriteHeader(head); err != nil {
		return fmt.Errorf("write %s into the archive: %w", name, err)
	}
	if _, err := w.tar.Write(text); err != nil {
		return fmt.Errorf("write %s into the archive: %w", name, err)
	}
	return nil
}

// AddText redacts a text, such as a log, and writes it.
func (w *Writer) AddText(name string, text []byte) error { return w.Add(name, w.redactor.text(text)) }

// Outcome is what became of one node.
type Outcome struct {
	Node string `json:"node"`
	// Missing is what could not be had, and why; empty if the node's directory has all.
	Missing []string `json:"missing"`
}

// Close writes what became of each node, and ends the archive.
func (w *Writer) Close(version string, outcomes []Outcome) error {
	index, err := json.MarshalIndent(struct {
		Version string    `json:"version"`
		At      time.Time `json:"at"`
		Nodes   []Outcome `json:"nodes"`
	}{version, w.now, outcomes}, "", "  ")
	if err == nil {
		err = w.AddText("index.json", append(index, '\n'))
	}
	return errors.Join(err, w.tar.Close(), w.zip.Close())
}

// Missing are the errors that Files returned, one a line.
func Missing(err error) []string {
	lines := []string{}
	if err == nil {
		return lines
	}
	if joined, is := err.(interface{ Unwrap() []error }); is { //nolint:errorlint // Each of the joined errors is one line.
		for _, one := range joined.Unwrap() {
			lines = append(lines, Missing(one)...)
		}
		return lines
	}
	return append(lines, err.Error())
}
