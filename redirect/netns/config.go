// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// Config says where network namespaces are looked for.
type Config struct {
	// Dirs have the container runtime's mounts of network namespaces, by absolute
	// path, the preferred first. One that doesn't exist is passed over.
	Dirs []string
	// Proc is a mount of the host's /proc, where namespaces are looked for that no
	// directory has: in the oldest process of each. Empty: nowhere. It needs the
	// host's PID namespace, and capability SYS_PTRACE.
	Proc string
}

// DefaultConfig has the directories of containerd, CRI-O and Docker.
func DefaultConfig() Config {
	return Config{Dirs: []string{"/run/netns", "/var/run/netns", "/var/run/docker/netns"}}
}

// Validate reports everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if len(c.Dirs) == 0 && c.Proc == "" {
		errs = append(errs, errors.New("network namespaces: neither a directory nor a /proc to look in"))
	}
	for i, dir := range c.Dirs {
		switch {
		case !filepath.IsAbs(dir):
			errs = append(errs, fmt.Errorf("directory %d of network namespaces: %q is no absolute path", i+1, dir))
		case slices.Index(c.Dirs, dir) != i:
			errs = append(errs, fmt.Errorf("directory %d of network namespaces: %q is there twice", i+1, dir))
		}
	}
	if c.Proc != "" && !filepath.IsAbs(c.Proc) {
		errs = append(errs, fmt.Errorf("/proc to look for network namespaces in: %q is no absolute path", c.Proc))
	}
	return errors.Join(errs...)
}
