// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/cmd/internal/commands"
	"github.com/nodevoy/nodevoy/xds"
)

// The programs that run beside Envoy: what kubelet's probes run, and what starts
// Envoy.
const (
	probeProgram  = "nodevoy-probe"
	launchProgram = "nodevoy-launch"
)

// defaultMaxHeap is for a container with the chart's limit of 1 GiB.
const defaultMaxHeap = "800Mi"

// logDirectory is the name of a directory that is for the access log alone.
const logDirectory = "nodevoy"

// otherFiles are those that Envoy has open besides connections.
const otherFiles = 1000

func newBootstrap() *cobra.Command {
	cfg := agent.DefaultConfig()
	output, programs := "", ""
	maxHeap := resource.QuantityValue{Quantity: resource.MustParse(defaultMaxHeap)}
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "Print the configuration file that Envoy starts with",
		Args:  commands.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if maxHeap.Sign() < 0 {
				return usageError{Err: fmt.Errorf("--envoy-max-heap %s: want a size, such as 512Mi, or 0 for no bound", maxHeap.String())}
			}
			cfg.XDS.MaxHeap = uint64(maxHeap.Value())
			var files unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
				return fmt.Errorf("read the limit of open files: %w", err)
			}
			cfg.XDS.MaxConnections = maxConnections(files.Max, cfg.XDS.MaxConnections)
			if err := cfg.Validate(); err != nil {
				return usageError{Err: err}
			}
			text, err := xds.Bootstrap(cfg.Resolved().XDS)
			if err != nil {
				return err
			}
			if programs != "" {
				if err := prepareRunDir(programs, cfg.XDS.Group); err != nil {
					return err
				}
			}
			// A directory of another name may be the node's, such as /var/log.
			if dir := filepath.Dir(cfg.XDS.AccessLogFile); filepath.Base(dir) == logDirectory && cfg.XDS.Group != 0 {
				if err := shareDir(dir, cfg.XDS.Group); err != nil {
					return err
				}
			}
			if output == "" {
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			// Envoy may run as another user, and nothing in it is secret.
			return writeFile(output, text, 0o644)
		},
	}
	nodeFlags(cmd.Flags(), &cfg)
	socketFlags(cmd.Flags(), &cfg)
	collectorFlags(cmd.Flags(), &cfg)
	logFileFlags(cmd.Flags(), &cfg)
	cmd.Flags().Var(&maxHeap, "envoy-max-heap", "heap size near which Envoy ends requests and accepts no more connections, such as 512Mi; keep it below the memory limit of Envoy's container; 0 for no bound")
	cmd.Flags().StringVar(&output, "output", output, "file to write, instead of standard output")
	cmd.Flags().StringVar(&programs, "programs-output", programs, "run directory to copy "+probeProgram+" and "+launchProgram+" to, for a container that has only Envoy, and to prepare for Envoy's sockets")
	return cmd
}

// maxConnections is how many connections Envoy may accept, up to a maximum, with this
// hard limit of open files, which Envoy raises its own to: it runs beside this command,
// or in a container of the same pod. A connection has two sockets, one of them to a
// backend. The rest is for listeners, of which each pod has six for each worker.
func maxConnections(files, most uint64) uint64 {
	rest := min(files/2, otherFiles)
	return max(1, min(most, (files-rest)/2))
}

// prepareRunDir puts the programs there, and lets Envoy's group in if it has one.
func prepareRunDir(dir string, group int) error {
	if err := copyPrograms(dir); err != nil || group == 0 {
		return err
	}
	return shareDir(dir, group)
}

// copyPrograms copies the programs that are installed beside this one.
func copyPrograms(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	for _, name := range []string{probeProgram, launchProgram} {
		program, err := os.ReadFile(filepath.Join(filepath.Dir(self), name))
		if err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
		if err := writeFile(filepath.Join(dir, name), program, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// shareDir lets the group make files in the directory, such as sockets or a log. The sticky bit keeps it
// from replacing those of others: kubelet runs a program there, as root. Nobody
// loses permissions, as kubelet would give them back.
func shareDir(dir string, group int) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("share %s: %w", dir, err)
	}
	if err := errors.Join(os.Chown(dir, -1, group), os.Chmod(dir, info.Mode().Perm()|0o070|fs.ModeSticky)); err != nil {
		return fmt.Errorf("share %s with group %d: %w", dir, group, err)
	}
	return nil
}

// writeFile writes the whole file or, if that fails, changes nothing: who reads
// it never sees a part. A file that exists keeps its mode; a new one gets this one.
// What is no regular file, such as /dev/stdout, is just written to.
func writeFile(name string, text []byte, mode fs.FileMode) (err error) {
	switch info, statErr := os.Stat(name); {
	case statErr == nil && !info.Mode().IsRegular():
		if err := os.WriteFile(name, text, mode); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		return nil
	case statErr == nil:
		mode = info.Mode().Perm()
		// A symbolic link stays one.
		if name, err = filepath.EvalSymlinks(name); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = errors.Join(f.Chmod(mode), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
