// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// epoch is when everything in an image was made, so that it is reproducible.
const epoch = "1970-01-01T00:00:00Z"

// The parts of the image format that are used here, as its specification
// spells them.
type (
	imageConfig struct {
		Architecture string        `json:"architecture"`
		OS           string        `json:"os"`
		Created      string        `json:"created"`
		Config       processConfig `json:"config"`
		RootFS       layerConfig   `json:"rootfs"`
	}
	processConfig struct {
		Entrypoint, Cmd, Env []string
		User, WorkingDir     string
	}
	layerConfig struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	manifest struct {
		Config           string
		RepoTags, Layers []string
	}
)

// write assembles an image into a docker archive named after it, in dir, and
// returns the archive's size in bytes.
func write(image image, dir string) (size int64, err error) {
	layer, err := rootfs(image)
	if err != nil {
		return 0, err
	}
	config, err := json.Marshal(imageConfig{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Created:      epoch,
		Config: processConfig{
			Entrypoint: image.entrypoint, Cmd: image.command, User: image.user, WorkingDir: "/",
			Env: []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		},
		RootFS: layerConfig{Type: "layers", DiffIDs: []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return 0, fmt.Errorf("encode the configuration: %w", err)
	}
	configName := fmt.Sprintf("%x.json", sha256.Sum256(config))
	index, err := json.Marshal([]manifest{{
		Config: configName, RepoTags: []string{image.reference}, Layers: []string{"layer.tar"},
	}})
	if err != nil {
		return 0, fmt.Errorf("encode the manifest: %w", err)
	}
	archive, err := packFiles(map[string][]byte{"/layer.tar": layer, "/" + configName: config, "/manifest.json": index})
	if err != nil {
		return 0, err
	}
	name, _, _ := strings.Cut(filepath.Base(image.reference), ":")
	if err := os.WriteFile(filepath.Join(dir, name+".tar"), archive, 0o644); err != nil {
		return 0, fmt.Errorf("write the archive: %w", err)
	}
	return int64(len(archive)), nil
}

// packFiles is a tar of plain files.
func packFiles(files map[string][]byte) ([]byte, error) {
	headers := map[string]*tar.Header{}
	for name, text := range files {
		headers[name] = &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}
	}
	return pack(headers, files)
}
