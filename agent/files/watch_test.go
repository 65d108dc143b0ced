// SPDX-License-Identifier: Apache-2.0

package files_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

type service = corev1.Service

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestNewAndRemovedFiles(t *testing.T) {
	r := start(t, nil)
	r.await(t, "empty", state{})
	write(t, filepath.Join(r.dir, "a.yaml"), services("a"))
	r.await(t, "added", state{Services: []string{"a"}})
	write(t, filepath.Join(r.dir, "b.json"), `{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"}}`)
	r.await(t, "added another", state{Services: []string{"a", "b"}})
	rename(t, filepath.Join(r.dir, "b.json"), filepath.Join(r.dir, "c.json"))
	r.await(t, "renamed", state{Services: []string{"a", "b"}})
	rename(t, filepath.Join(r.dir, "c.json"), filepath.Join(r.dir, "c.json.off"))
	r.await(t, "switched off", state{Services: []string{"a"}})
	if err := os.Remove(filepath.Join(r.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	r.await(t, "removed", state{})
}

// TestEditors replace a file by moving the old one away and a new one in, or
// truncate it and write it again.
func TestEditors(t *testing.T) {
	r := start(t, map[string]string{"a.yaml": services("a1")})
	path := filepath.Join(r.dir, "a.yaml")

	rename(t, path, path+"~")
	write(t, path, services("a2"))
	r.await(t, "backup and write", state{Services: []string{"a2"}})

	write(t, filepath.Join(r.dir, ".a.yaml.swp"), services("a3"))
	rename(t, filepath.Join(r.dir, ".a.yaml.swp"), path)
	r.await(t, "write and rename", state{Services: []string{"a3"}})

	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := services("a4", "a5")
	for i := range text {
		if _, err := file.WriteString(text[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	r.await(t, "truncate and write", state{Services: []string{"a4", "a5"}})
	// Same length, same name, perhaps the same tick of the clock.
	write(t, path, services("a6", "a7"))
	r.await(t, "overwrite", state{Services: []string{"a6", "a7"}})
}

// TestKubeletVolume is a ConfigMap volume: the files are links through ..data,
// which kubelet swaps for all of them at once.
func TestKubeletVolume(t *testing.T) {
	dir := t.TempDir()
	version := func(name, text string) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "a.yaml"), text)
		if err := os.Symlink(name, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
	}
	version("..2026_1", services("a1"))
	if err := os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	r := startIn(t, dir, never)
	r.await(t, "start", state{Services: []string{"a1"}})
	version("..2026_2", services("a2"))
	r.await(t, "swapped", state{Services: []string{"a2"}})
	if err := os.RemoveAll(filepath.Join(dir, "..2026_1")); err != nil {
		t.Fatal(err)
	}
	version("..2026_3", services("a3"))
	r.await(t, "swapped again", state{Services: []string{"a3"}})
}

func TestUnreadableFileKeepsItsLastGoodVersion(t *testing.T) {
	r := start(t, map[string]string{"a.yaml": services("a1")})
	path := filepath.Join(r.dir, "a.yaml")
	// Root can read everything; a link to itself nobody can.
	if err := os.Symlink("loop.yaml", filepath.Join(r.dir, "loop.yaml")); err != nil {
		t.Fatal(err)
	}
	rename(t, filepath.Join(r.dir, "loop.yaml"), path)
	if err := os.Symlink("a.yaml", filepath.Join(r.dir, "loop.yaml")); err != nil {
		t.Fatal(err)
	}
	r.await(t, "unreadable", state{Services: []string{"a1"}, Problems: []string{
		"File||a.yaml||stat " + path + ": too many levels of symbolic links; what was last read of a.yaml stays in force",
		"File||loop.yaml||stat " + filepath.Join(r.dir, "loop.yaml") + ": too many levels of symbolic links; nothing of loop.yaml is used",
	}})
}

// TestDirectoryLostAndFound outlives its directory.
func TestDirectoryLostAndFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a.yaml"), services("a1"))
	r := startIn(t, dir, 100*time.Millisecond)
	before := time.Now()
	rename(t, dir, dir+"-away")
	r.await(t, "lost", state{Services: []string{"a1"}, Problems: []string{
		"File||" + dir + "||read objects directory: open " + dir + ": no such file or directory; its objects stay in force",
	}})
	for _, h := range r.Health() {
		if !h.Synced || h.Err == nil || h.Since.Before(before) || h.Since.After(time.Now()) {
			t.Errorf("while it is lost: %+v", h)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "a.yaml"), services("a2"))
	r.await(t, "found again by the slow re-read", state{Services: []string{"a2"}})
	for _, h := range r.Health() {
		if !h.Synced || h.Err != nil || !h.Since.IsZero() {
			t.Errorf("once it is found: %+v", h)
		}
	}
	write(t, filepath.Join(dir, "a.yaml"), services("a3"))
	r.await(t, "watched again", state{Services: []string{"a3"}})
}
