// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestGroup reads a control group of each version.
func TestGroup(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"version 1": {
			"memory.limit_in_bytes": "", "memory.kmem.tcp.limit_in_bytes": "", "memory.kmem.tcp.usage_in_bytes": "300\n",
			"memory.stat": "cache 5000\nrss 100\nshmem 20\n", "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
		},
		"version 2": {
			"memory.max": "max\n", "memory.stat": "anon 100\nfile 5000\nshmem 20\nsock 300\n", "memory.events": "low 0\noom 2\noom_kill 1\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := group{t.TempDir()}
			for file, text := range files {
				if err := os.WriteFile(filepath.Join(g.dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := g.limit(1 << 30); err != nil {
				t.Error(err)
			}
			own, sockets, err := g.used()
			if err != nil || own != 120 || sockets != 300 {
				t.Errorf("used: %d, %d, %v, want 120, 300", own, sockets, err)
			}
			killed, err := g.killed()
			if err != nil || !killed {
				t.Errorf("killed: %v, %v, want true", killed, err)
			}
		})
	}
}
