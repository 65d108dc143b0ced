// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// libraryDir is where Debian keeps this architecture's libraries.
func libraryDir() string {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	return filepath.Join("/usr/lib", triplet)
}

// addLibraries adds the shared libraries, and the loader, that an ELF file
// needs, and those they need. A static binary, or no ELF file, needs none.
func addLibraries(files map[string][]byte, name string) error {
	binary, err := elf.Open(name)
	var notELF *elf.FormatError
	if errors.As(err, &notELF) {
		return nil
	}
	if err != nil {
		return err
	}
	defer binary.Close()
	needed, err := binary.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read what %s needs: %w", name, err)
	}
	for i := range needed {
		needed[i] = filepath.Join(libraryDir(), needed[i])
	}
	loader, err := loaderOf(binary)
	if err != nil {
		return fmt.Errorf("read the loader of %s: %w", name, err)
	}
	if loader != "" {
		needed = append(needed, loader)
	}
	for _, library := range needed {
		if _, done := files[library]; done {
			continue
		}
		text, err := os.ReadFile(library)
		if err != nil {
			return fmt.Errorf("read library of %s: %w", filepath.Base(name), err)
		}
		files[library] = text
		if err := addLibraries(files, library); err != nil {
			return err
		}
	}
	return nil
}

// loaderOf is the program interpreter a binary names; empty for a static one.
func loaderOf(binary *elf.File) (string, error) {
	for _, segment := range binary.Progs {
		if segment.Type == elf.PT_INTERP {
			text, err := io.ReadAll(segment.Open())
			return string(bytes.TrimRight(text, "\x00")), err
		}
	}
	return "", nil
}
