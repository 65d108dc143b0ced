// SPDX-License-Identifier: Apache-2.0

package objects

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/nodevoy/nodevoy/agent/model"
)

// directory is what is known of the files in one directory. It belongs to one
// goroutine.
type directory struct {
	path  string
	files map[string]*file
	// lost is why the directory can't be read now.
	lost error
}

// digest names a document by its text.
type digest [sha256.Size]byte

// file is one file of the directory.
type file struct {
	// info is the file as it was last read; nil when it has to be read again.
	info os.FileInfo
	// documents are those of the last good version, by their text, so that
	// only what changed in a big file is decoded again.
	documents map[digest]decoded
	// objects and unread are those of the last good version.
	objects []object
	unread  []model.Problem
	// faults are those of the present version; none when it is good.
	faults []model.Problem
	// told are the faults that were last logged.
	told []model.Problem
}

// forget makes the next scan read every file.
func (d *directory) forget() {
	for _, f := range d.files {
		f.info = nil
	}
}

// scan reads the directory again and says whether anything is different now.
// Files whose size, identity and time are as before are not read, except those
// named in dirty. The error is about the directory; then nothing has changed.
func (d *directory) scan(dirty map[string]bool) (changed bool, err error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return false, fmt.Errorf("read objects directory: %w", err)
	}
	present := make(map[string]bool, len(entries))
	for _, entry := range entries {
		name := entry.Name()
		if !wanted(name) {
			continue
		}
		info, err := os.Stat(filepath.Join(d.path, name)) // follows links
		if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
			continue
		}
		present[name] = true
		f := d.files[name]
		if f == nil {
			f = &file{}
			d.files[name] = f
			changed = true
		}
		switch {
		case err != nil:
			changed = f.unreadable(name, err) || changed
		case dirty[name] || !same(f.info, info):
			changed = f.read(d.path, name, info) || changed
		}
	}
	for name := range d.files {
		if !present[name] {
			delete(d.files, name)
			changed = true
		}
	}
	return changed, nil
}

// wanted says whether the file is one of objects: by its suffix, and not
// hidden, as editors' and kubelet's own files are.
func wanted(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	default:
		return false
	}
}

func same(x, y os.FileInfo) bool {
	return x != nil && os.SameFile(x, y) && x.Size() == y.Size() && x.ModTime().Equal(y.ModTime())
}

// unreadable keeps the last good version of a file that can't be read now.
func (f *file) unreadable(name string, err error) (changed bool) {
	faults := []model.Problem{{Kind: kindFile, Name: name, Detail: err.Error()}}
	changed = !slices.Equal(f.faults, faults)
	f.info, f.faults = nil, faults
	return changed
}

// read takes in the present version of the file, and says whether that
// changed anything.
func (f *file) read(dir, name string, info os.FileInfo) (changed bool) {
	path := filepath.Join(dir, name)
	if !info.Mode().IsRegular() {
		return f.unreadable(name, errors.New("is not a regular file"))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return f.unreadable(name, err)
	}
	documents, order := f.decode(name, split(data))
	faults := collect(documents, order, func(d decoded) []model.Problem { return d.faults })
	f.info = info
	// Someone is still writing: what was read may be anything, look again.
	if after, err := os.Stat(path); err != nil || !same(info, after) {
		f.info = nil
	}
	if len(faults) > 0 {
		changed = !slices.Equal(f.faults, faults)
		f.faults = faults
		return changed
	}
	objects := collect(documents, order, func(d decoded) []object { return d.objects })
	unread := collect(documents, order, func(d decoded) []model.Problem { return d.unread })
	changed = len(f.faults) > 0 || !slices.Equal(f.objects, objects) || !slices.Equal(f.unread, unread)
	f.documents, f.objects, f.unread, f.faults = documents, objects, unread, nil
	return changed
}

// decode decodes the documents that the last good version does not have, side
// by side, and returns all of them and their order.
func (f *file) decode(name string, docs []document) (map[digest]decoded, []digest) {
	order := make([]digest, len(docs))
	results := make([]decoded, len(docs))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, doc := range docs {
		// A document that moved to another line is still the same objects.
		order[i] = sha256.Sum256(doc.text)
		known, ok := f.documents[order[i]]
		if ok {
			results[i] = known
			continue
		}
		group.Go(func() error {
			results[i] = decode(name, doc)
			return nil
		})
	}
	// The group waits, it has no errors: faults are part of the result.
	_ = group.Wait()
	documents := make(map[digest]decoded, len(docs))
	for i, d := range order {
		documents[d] = results[i]
	}
	return documents, order
}

func collect[T any](documents map[digest]decoded, order []digest, of func(decoded) []T) []T {
	var all []T
	for _, d := range order {
		all = append(all, of(documents[d])...)
	}
	return all
}
