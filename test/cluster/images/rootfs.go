// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"
)

// image is one image to assemble.
type image struct {
	// reference is its full name, with registry and tag.
	reference           string
	entrypoint, command []string
	// user is who runs in it, "UID:GID"; empty for root.
	user string
	// binaries are programs, by their path in the image; the libraries they
	// need come along, from where the machine has them.
	binaries map[string]string
	// links are symbolic links, by their path in the image.
	links map[string]string
	// trees are directories of the machine's, of files that take their place
	// in the image as they have it here.
	trees []string
}

// rootfs is the image's only layer: a tar of directories, files and links,
// sorted by name and with no time in it.
func rootfs(image image) ([]byte, error) {
	files := map[string][]byte{}
	for target, source := range image.binaries {
		text, err := os.ReadFile(source)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", target, err)
		}
		files[target] = text
		if err := addLibraries(files, source); err != nil {
			return nil, fmt.Errorf("find libraries of %s: %w", target, err)
		}
	}
	for _, tree := range image.trees {
		if err := addTree(files, tree); err != nil {
			return nil, err
		}
	}
	headers := map[string]*tar.Header{}
	for name, text := range files {
		headers[name] = &tar.Header{Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(text))}
	}
	for name, target := range image.links {
		headers[name] = &tar.Header{Typeflag: tar.TypeSymlink, Linkname: target, Mode: 0o777}
	}
	for _, name := range slices.Collect(maps.Keys(headers)) {
		for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
			headers[dir] = &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}
		}
	}
	headers["/run"] = &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}
	headers["/tmp"] = &tar.Header{Typeflag: tar.TypeDir, Mode: 0o1777}
	return pack(headers, files)
}

// pack writes a tar of the headers, by name, with the text of those that have one.
func pack(headers map[string]*tar.Header, files map[string][]byte) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		header := headers[name]
		header.Name = name[1:]
		header.ModTime = time.Unix(0, 0)
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
		if _, err := w.Write(files[name]); err != nil {
			return nil, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return out.Bytes(), nil
}

// addTree adds every file below a directory. Links among them become copies.
func addTree(files map[string][]byte, tree string) error {
	return filepath.WalkDir(tree, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		files[name] = text
		return addLibraries(files, name)
	})
}
