// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/xds"
)

// Held is what a process holds open, in numbers of descriptors.
type Held struct {
	// All are all descriptors; Namespaces and Sockets are some of them.
	All, Namespaces, Sockets int
}

// Held counts what the process holds open.
func (p *Process) Held() (Held, error) {
	var h Held
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.PID()))
	if err != nil || len(fds) == 0 {
		return h, fmt.Errorf("list descriptors of %s: %w", p.name, errors.Join(err, os.ErrNotExist))
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil {
			continue // closed meanwhile
		}
		h.All++
		var fs unix.Statfs_t
		switch {
		case strings.HasPrefix(target, "socket:"):
			h.Sockets++
		// By its name, one that was opened by a mount is like any file.
		case unix.Statfs(fd, &fs) == nil && fs.Type == unix.NSFS_MAGIC:
			h.Namespaces++
		}
	}
	return h, nil
}

// NamespaceMounts counts the mounts of namespaces that the process sees.
func (p *Process) NamespaceMounts() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("read mounts of %s: %w", p.name, err)
	}
	return strings.Count(string(text), " - nsfs "), nil
}

// Listeners are the names of the listeners that Envoy has from the agent.
func (e *Envoy) Listeners(ctx context.Context) ([]string, error) {
	text, err := e.Admin(ctx, "/listeners?format=json")
	if err != nil {
		return nil, err
	}
	var got struct {
		Statuses []struct{ Name string } `json:"listener_statuses"`
	}
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		return nil, fmt.Errorf("parse listeners of Envoy: %w", err)
	}
	names := make([]string, 0, len(got.Statuses))
	for _, s := range got.Statuses {
		if s.Name != xds.HealthListener {
			names = append(names, s.Name)
		}
	}
	return names, nil
}
