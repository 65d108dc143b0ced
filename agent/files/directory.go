// SPDX-License-Identifier: Apache-2.0

package files

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
)

// directory is what is known of the files in one directory. It belongs to one
// goroutine.
type directory struct {
	path    string
	decoder *decoder
	files   map[string]*file
	// lost is why the directory can't be read now, since when.
	lost  error
	since time.Time
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
			f = &file{name: name}
			d.files[name] = f
			changed = true
		}
		switch {
		case err != nil:
			changed = f.refuse(err) || changed
		case dirty[name] || !same(f.info, info):
			changed = f.read(d.path, info, d.decoder) || changed
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

// merge joins the files. Of an object that is written twice the one in the
// first file by name counts, and in one file the first.
func (d *directory) merge(nodeName string) (model.Inputs, []model.Problem) {
	inputs := model.Inputs{NodeName: nodeName}
	var problems []model.Problem
	if d.lost != nil {
		problems = append(problems, model.Problem{
			Kind: kindFile, Name: d.path, Detail: d.lost.Error() + "; its objects stay in force",
		})
	}
	sets := map[*kinds.Kind]kinds.Set{}
	for _, kind := range d.decoder.kinds {
		sets[kind] = kind.NewSet(nodeName)
	}
	firstAt := map[objectKey]string{}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[name]
		problems = append(problems, f.problems...)
		for _, o := range f.objects {
			place := fmt.Sprintf("%s line %d", name, o.line)
			if first, ok := firstAt[o.key]; ok {
				problems = append(problems, o.key.problem("", "is in "+first+" and again in "+place+"; the first one counts"))
				continue
			}
			firstAt[o.key] = place
			sets[o.kind].Put(o.value)
		}
	}
	for _, set := range sets {
		set.AddTo(&inputs)
	}
	return inputs, problems
}
