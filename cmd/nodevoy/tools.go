// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/objects"
	"github.com/nodevoy/nodevoy/redirect"
	"github.com/nodevoy/nodevoy/xds"
)

func newBootstrap() *cobra.Command {
	cfg := agent.DefaultConfig()
	output := ""
	cmd := &cobra.Command{
		Use:   "bootstrap",
		Short: "Print the configuration file that the node's Envoy starts with",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Validate(); err != nil {
				return usageError{err}
			}
			text, err := xds.Bootstrap(cfg.Resolved().XDS)
			if err != nil {
				return err
			}
			if output != "" {
				// Envoy may run as another user, and nothing in it is secret.
				if err := os.WriteFile(output, text, 0o644); err != nil {
					return fmt.Errorf("write the bootstrap: %w", err)
				}
				return nil
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	nodeFlags(cmd.Flags(), &cfg)
	cmd.Flags().StringVar(&output, "output", output, "file to write instead of standard output")
	return cmd
}

func newStatus() *cobra.Command {
	cfg := agent.DefaultConfig()
	output, all := "table", false
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the agent of this node knows and has done",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usageError{fmt.Errorf("-o %q is neither table nor json", output)}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
			defer cancel()
			v, err := debug.Fetch(ctx, agent.DebugSocket(cfg.RunDir), all)
			if err != nil {
				return err
			}
			if output == "table" {
				return debug.WriteTable(cmd.OutOrStdout(), &v, time.Now())
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(v)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's sockets")
	f.StringVarP(&output, "output", "o", output, "table or json")
	f.BoolVar(&all, "all", all, "list every frontend, not just those Envoy uses")
	return cmd
}

func newRender() *cobra.Command {
	cfg := agent.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Print what an agent would give Envoy and the kernel for a directory of objects",
		Long: "Print what an agent would give Envoy and the kernel for a directory of objects,\n" +
			"and why. What is wrong with the objects goes to standard error. The node is not\n" +
			"looked at: auto stands for dnat and for both address families.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Objects == "" {
				return usageError{fmt.Errorf("--objects is required")}
			}
			if err := cfg.Validate(); err != nil {
				return usageError{err}
			}
			return render(cmd, cfg.Resolved())
		},
	}
	f := cmd.Flags()
	nodeFlags(f, &cfg)
	redirectFlags(f, &cfg)
	envoyFlags(f, &cfg)
	modelFlags(f, &cfg)
	f.StringVar(&cfg.Objects, "objects", cfg.Objects, "directory of YAML files to read")
	return cmd
}

func render(cmd *cobra.Command, cfg agent.Config) error {
	inputs, problems, err := objects.Load(cfg.Objects, cfg.NodeName)
	if err != nil {
		return err
	}
	node := model.Build(inputs, cfg.Model)
	for _, p := range append(problems, node.Problems...) {
		cmd.PrintErrln("nodevoy:", agent.ProblemLine(p))
	}
	text, err := xds.Render(cfg.XDS, node, nil)
	if err != nil {
		return err
	}
	var why strings.Builder
	for _, line := range agent.Explain(node) {
		fmt.Fprintln(&why, "#", line)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s%s---\n%s", &why, text, redirect.Compile(node, cfg.Redirect).Render())
	return err
}

func newCleanup() *cobra.Command {
	cfg := agent.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything nodevoy put into this node's kernel",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Redirect.Validate(); err != nil {
				return usageError{err}
			}
			applier, err := redirect.New(cfg.Redirect, zap.NewNop())
			if err != nil {
				return err
			}
			err = applier.Cleanup(cmd.Context())
			if errors.Is(err, os.ErrPermission) {
				// One of many, all alike.
				return errors.New("no permission to change the kernel's tables: run as root with the capabilities NET_ADMIN and NET_RAW")
			}
			return err
		},
	}
	redirectFlags(cmd.Flags(), &cfg)
	return cmd
}
