// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent/kinds"
	"github.com/nodevoy/nodevoy/agent/model"
)

const (
	// quiet is how long a directory must be left alone before it is read: a
	// file that is being written is not, and an editor that moves the old file
	// away first has put the new one in place.
	quiet = 50 * time.Millisecond
	// patience is when a directory that is never quiet is read all the same.
	patience = time.Second
	// rereadInterval is how often the directory is read without an event: inotify
	// says nothing of changes behind a link, or on some file systems.
	rereadInterval = 10 * time.Second
)

// Source is a directory of objects.
type Source struct {
	nodeName string
	log      *zap.Logger
	dir      directory
	reread   time.Duration
	changed  chan struct{}
	current  atomic.Pointer[snapshot]
}

// snapshot is the directory as it was read, never changed once it is stored.
type snapshot struct {
	inputs   model.Inputs
	problems []model.Problem
	// lost is why the directory can't be read now, since when.
	lost  error
	since time.Time
}

// New makes a source of the directory for the node of that name. It reads
// nothing yet; a directory that is not one is an error.
func New(dir, nodeName string, log *zap.Logger) (*Source, error) {
	if nodeName == "" {
		return nil, errors.New("files: the node's name is empty")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("open objects directory: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open objects directory: %s is not a directory", dir)
	}
	return &Source{
		nodeName: nodeName,
		log:      log,
		dir:      directory{path: dir, decoder: newDecoder(kinds.All()), files: map[string]*file{}},
		reread:   rereadInterval,
		changed:  make(chan struct{}, 1),
	}, nil
}

// Load reads a directory once. The error is about the directory; what is wrong
// with the files is in the problems.
func Load(dir, nodeName string) (model.Inputs, []model.Problem, error) {
	s, err := New(dir, nodeName, zap.NewNop())
	if err != nil {
		return model.Inputs{}, nil, err
	}
	if _, err := s.dir.scan(nil); err != nil {
		return model.Inputs{}, nil, err
	}
	inputs, problems := s.dir.merge(nodeName)
	return inputs, problems, nil
}

// Changed says "look again", first when every file has been read.
func (s *Source) Changed() <-chan struct{} { return s.changed }

// Inputs are all the objects as they are now. They are shared and must not be
// written to. One whose document has not changed is the same pointer as before.
// Empty before the first Changed.
func (s *Source) Inputs() model.Inputs {
	if now := s.current.Load(); now != nil {
		return now.inputs
	}
	return model.Inputs{NodeName: s.nodeName}
}

// Problems are what is wrong with the files as they are now: each names the
// object, the field and the file. Files as such have the kind File.
func (s *Source) Problems() []model.Problem {
	if now := s.current.Load(); now != nil {
		return now.problems
	}
	return nil
}

// Health is how the reading of each kind goes, all from the one directory.
func (s *Source) Health() []kinds.Health {
	now := s.current.Load()
	var all []kinds.Health
	for _, kind := range kinds.All() {
		h := kinds.Health{Kind: kind.Kind, Synced: now != nil}
		if now != nil {
			h.Err, h.Since = now.lost, now.since
		}
		all = append(all, h)
	}
	return all
}

// Run reads the directory and follows its changes until ctx ends. It fails
// when the directory can't be read at the start; if it goes away later, the
// objects stay as they were until it is back.
func (s *Source) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch objects directory %s: %w", s.dir.path, err)
	}
	defer watcher.Close() //nolint:errcheck // nothing is left to lose
	// Watch first, read second: nothing that happens in between is missed.
	if err := watcher.Add(s.dir.path); err != nil {
		return fmt.Errorf("watch objects directory %s: %w", s.dir.path, err)
	}
	if _, err := s.dir.scan(nil); err != nil {
		return err
	}
	s.publish()
	return s.follow(ctx, watcher)
}

// follow scans after each burst of events, and now and then without any. A burst
// ends when all is quiet, or when it has lasted too long.
func (s *Source) follow(ctx context.Context, watcher *fsnotify.Watcher) error {
	ticker := time.NewTicker(s.reread)
	defer ticker.Stop()
	calm, late := time.NewTimer(quiet), time.NewTimer(patience)
	defer calm.Stop()
	defer late.Stop()
	dirty := map[string]bool{}
	changed := func(name string) {
		if len(dirty) == 0 {
			late.Reset(patience)
		}
		calm.Reset(quiet)
		dirty[name] = true
	}
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-watcher.Events:
			if !ok {
				return fmt.Errorf("watch objects directory %s: the watch ended", s.dir.path)
			}
			changed(filepath.Base(event.Name))
			continue
		case err := <-watcher.Errors:
			// Most likely more events than the kernel's queue holds.
			s.log.Warn("objects directory changed too fast to watch, reading all of it", zap.Error(err))
			s.dir.forget()
			changed("")
			continue
		case now = <-calm.C:
		case now = <-late.C:
		case now = <-ticker.C:
			// A directory that was replaced needs a new watch; for one that is
			// still the same this does nothing. The scan says what is wrong.
			_ = watcher.Add(s.dir.path)
			s.rescan(nil, now)
			continue
		}
		if len(dirty) > 0 {
			s.rescan(dirty, now)
			dirty = map[string]bool{}
		}
	}
}

// rescan reads the directory again, now, and publishes what it found.
func (s *Source) rescan(dirty map[string]bool, now time.Time) {
	changed, err := s.dir.scan(dirty)
	switch {
	case err == nil:
		s.dir.since = time.Time{}
	case s.dir.lost == nil:
		s.dir.since = now
		s.log.Warn("objects directory is gone, its objects stay in force", zap.Error(err))
	}
	if changed || (err != nil) != (s.dir.lost != nil) {
		s.dir.lost = err
		s.publish()
	}
}

// publish makes the present state of the directory the current one.
func (s *Source) publish() {
	inputs, problems := s.dir.merge(s.nodeName)
	s.current.Store(&snapshot{inputs: inputs, problems: problems, lost: s.dir.lost, since: s.dir.since})
	for name, f := range s.dir.files {
		switch {
		case slices.Equal(f.logged, f.faults):
			continue
		case len(f.faults) > 0:
			first := f.faults[0]
			s.log.Warn("objects file has faults",
				zap.String("file", name), zap.Int("faults", len(f.faults)),
				zap.String("kind", first.Kind), zap.String("namespace", first.Namespace), zap.String("name", first.Name),
				zap.String("field", first.Field), zap.String("detail", first.Detail))
		default:
			s.log.Info("objects file is good again", zap.String("file", name))
		}
		f.logged = f.faults
	}
	select {
	case s.changed <- struct{}{}:
	default: // a round is due already
	}
}
