// SPDX-License-Identifier: Apache-2.0

package files

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/nodevoy/nodevoy/agent/model"
)

// file is one file of the directory.
type file struct {
	name string
	// info is the file as it was last read; nil when it has to be read again.
	info os.FileInfo
	// documents are those without a fault, by their text, so that only what
	// changed in a big file is decoded again, and the rest stays the same objects.
	documents map[digest]decoded
	// objects are in force: those of the present version of the file, and the
	// last good version of those that it has a fault in.
	objects []located
	// problems are those of the present version; logged are the last that were
	// logged, of those that are faults.
	problems       []model.Problem
	faults, logged []model.Problem
}

// digest names a document by its text.
type digest [sha256.Size]byte

// located is an object and the line where its document begins.
type located struct {
	object
	line int
}

// refuse keeps what is in force of a file that can't be read, or not be
// separated into documents, and says whether that is new.
func (f *file) refuse(err error) (changed bool) {
	after := "; nothing of " + f.name + " is used"
	if len(f.objects) > 0 {
		after = "; what was last read of " + f.name + " stays in force"
	}
	problems := []model.Problem{{Kind: kindFile, Name: f.name, Detail: err.Error() + after}}
	changed = !slices.Equal(f.problems, problems)
	f.info, f.problems, f.faults = nil, problems, problems
	return changed
}

// read takes in the present version of the file, and says whether that
// changed anything.
func (f *file) read(dir string, info os.FileInfo, decoder *decoder) (changed bool) {
	path := filepath.Join(dir, f.name)
	if !info.Mode().IsRegular() {
		return f.refuse(errors.New("is not a regular file"))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return f.refuse(err)
	}
	docs, err := split(data)
	if err == nil {
		changed = f.take(docs, f.decode(docs, decoder))
	} else {
		changed = f.refuse(err)
	}
	f.info = info
	// Someone is still writing: what was read may be anything, read it again.
	if after, err := os.Stat(path); err != nil || !same(info, after) {
		f.info = nil
	}
	return changed
}

// decode decodes the documents that are new, side by side.
func (f *file) decode(docs []document, decoder *decoder) []decoded {
	results := make([]decoded, len(docs))
	digests := make([]digest, len(docs))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, doc := range docs {
		// A document that moved to another line is still the same objects.
		digests[i] = sha256.Sum256(doc.text)
		known, ok := f.documents[digests[i]]
		if ok {
			results[i] = known
			continue
		}
		group.Go(func() error {
			results[i] = decoder.decode(f.name, doc)
			return nil
		})
	}
	// The group waits, it has no errors: faults are part of the result.
	_ = group.Wait()
	f.documents = make(map[digest]decoded, len(docs))
	for i, result := range results {
		// Problems name the line, which may be another one next time.
		if len(result.faults) == 0 && len(result.unread) == 0 {
			f.documents[digests[i]] = result
		}
	}
	return results
}

// take makes the objects of the documents those in force, with the last good
// version of each object that now has a fault. A fault that may be in any
// object keeps all that are missing: one of them is it.
func (f *file) take(docs []document, results []decoded) (changed bool) {
	var objects []located
	var problems []model.Problem
	present := map[objectKey]bool{}
	faulty := map[objectKey]bool{}
	unidentified := false
	for i, result := range results {
		for _, o := range result.objects {
			objects = append(objects, located{o, docs[i].line})
			present[o.key] = true
		}
		problems = append(problems, result.unread...)
		for _, fault := range result.faults {
			faulty[keyOf(fault)] = true
			unidentified = unidentified || !identified(fault)
		}
	}
	kept := map[objectKey]bool{}
	for _, o := range f.objects {
		if !present[o.key] && (unidentified || faulty[o.key]) {
			objects = append(objects, o)
			kept[o.key] = true
		}
	}
	var faults []model.Problem
	for _, result := range results {
		for _, fault := range result.faults {
			fault.Detail += "; " + f.instead(fault, kept)
			faults = append(faults, fault)
		}
	}
	problems = append(problems, faults...)
	changed = !slices.Equal(f.problems, problems) ||
		!slices.EqualFunc(f.objects, objects, func(x, y located) bool { return x.object == y.object })
	f.objects, f.problems, f.faults = objects, problems, faults
	return changed
}

// instead says what is in force instead of what has the fault.
func (f *file) instead(fault model.Problem, kept map[objectKey]bool) string {
	switch {
	case kept[keyOf(fault)]:
		return "its last good version stays in force"
	case !identified(fault) && len(kept) > 0:
		return "objects that are now missing from " + f.name + " stay in force"
	default:
		return "it is not used"
	}
}
