// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/debug"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/objects"
	"github.com/nodevoy/nodevoy/redirect/apply"
	"github.com/nodevoy/nodevoy/redirect/netns"
	"github.com/nodevoy/nodevoy/redirect/plan"
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
	cmd.Flags().Var(bytesVar{&cfg.XDS.MaxHeap}, "envoy-max-heap", "memory from which on Envoy refuses connections, such as 512Mi, below its container's limit; 0 for no bound")
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
			"and why. What is wrong with the objects goes to standard error, and makes the\n" +
			"command fail after all is printed. The node is not looked at: auto stands for host\n" +
			"mode, for dnat and for both address families.",
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
	faults := slices.Concat(problems, node.Problems)
	for _, p := range faults {
		cmd.PrintErrln("nodevoy:", agent.ProblemLine(p))
	}
	desired := plan.Compile(node, cfg.Redirect)
	text, err := xds.Render(cfg.XDS, node, placeholders(desired))
	if err != nil {
		return err
	}
	var why strings.Builder
	for _, line := range agent.Explain(node) {
		fmt.Fprintln(&why, "#", line)
	}
	if _, err = fmt.Fprintf(cmd.OutOrStdout(), "%s%s---\n%s", &why, text, desired.Render()); err != nil {
		return err
	}
	if len(faults) > 0 {
		return fmt.Errorf("not everything in %s can be used as written: see above", cfg.Objects)
	}
	return nil
}

// placeholders are the places of a plan of pod mode, with paths that only name
// the pod: no node is looked at.
func placeholders(desired *plan.Plan) []model.PodTarget {
	var places []model.PodTarget
	for _, p := range desired.Pods {
		places = append(places, model.PodTarget{
			Namespace: p.Namespace, Pod: p.Pod, UID: p.UID, Netns: "/run/netns/" + p.Namespace + "_" + p.Pod,
			V4: slices.ContainsFunc(p.IPs, netip.Addr.Is4), V6: slices.ContainsFunc(p.IPs, netip.Addr.Is6),
		})
	}
	return places
}

func newCleanup() *cobra.Command {
	cfg := agent.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything nodevoy put into this node's kernel, and into its pods' network namespaces",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(cfg.Redirect.Validate(), cfg.Netns.Validate()); err != nil {
				return usageError{err}
			}
			return errors.Join(cleanHost(cmd.Context(), cfg), cleanPods(cmd.Context(), cfg))
		},
	}
	redirectFlags(cmd.Flags(), &cfg)
	netnsFlags(cmd.Flags(), &cfg)
	return cmd
}

func cleanHost(ctx context.Context, cfg agent.Config) error {
	cfg.Redirect.Mode = plan.HostMode
	applier, err := apply.New(cfg.Redirect, zap.NewNop())
	if err != nil {
		return err
	}
	err = errors.Join(applier.Cleanup(ctx), applier.Close())
	if errors.Is(err, os.ErrPermission) {
		// One of many, all alike.
		return errors.New("no permission to change the kernel's tables: run as root with the capabilities NET_ADMIN and NET_RAW")
	}
	return err
}

func cleanPods(ctx context.Context, cfg agent.Config) error {
	err := agent.CleanPods(ctx, cfg, zap.NewNop())
	if errors.Is(err, os.ErrPermission) || errors.Is(err, netns.ErrNotPermitted) {
		return errors.New("no permission to enter pods' network namespaces: run as root with the capability SYS_ADMIN")
	}
	return err
}
