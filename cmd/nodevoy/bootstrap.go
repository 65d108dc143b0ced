// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/xds"
)

// probeProgram is the name of the program that kubelet's probes run.
const probeProgram = "nodevoy-probe"

// defaultMaxHeap is for a container with the chart's limit of 1 GiB.
const defaultMaxHeap = "800Mi"

func newBootstrap() *cobra.Command {
	cfg := agent.DefaultConfig()
	output, probeOutput := "", ""
	maxHeap := resource.QuantityValue{Quantity: resource.MustParse(defaultMaxHeap)}
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "Print the configuration file that Envoy starts with",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if maxHeap.Sign() < 0 {
				return usageError{fmt.Errorf("--envoy-max-heap %s: want a size, such as 512Mi, or 0 for no bound", maxHeap.String())}
			}
			cfg.XDS.MaxHeap = uint64(maxHeap.Value())
			if err := cfg.Validate(); err != nil {
				return usageError{err}
			}
			text, err := xds.Bootstrap(cfg.Resolved().XDS)
			if err != nil {
				return err
			}
			if probeOutput != "" {
				if err := copyProbe(probeOutput); err != nil {
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
	cmd.Flags().Var(&maxHeap, "envoy-max-heap", "heap size near which Envoy ends requests and accepts no more connections, such as 512Mi; keep it below the memory limit of Envoy's container; 0 for no bound")
	cmd.Flags().StringVar(&output, "output", output, "file to write, instead of standard output")
	cmd.Flags().StringVar(&probeOutput, "probe-output", probeOutput, "file to copy "+probeProgram+" to, for the liveness probe of a container without it")
	return cmd
}

// copyProbe copies the probe program, which is installed beside this one.
func copyProbe(target string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find %s: %w", probeProgram, err)
	}
	program, err := os.ReadFile(filepath.Join(filepath.Dir(self), probeProgram))
	if err != nil {
		return fmt.Errorf("copy %s: %w", probeProgram, err)
	}
	return writeFile(target, program, 0o755)
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
