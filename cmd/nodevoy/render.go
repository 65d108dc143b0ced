// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/files"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/cmd/internal/commands"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/xds"
)

func newRender() *cobra.Command {
	cfg := agent.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "render",
		Short: "Print what an agent would give Envoy and the kernel for a directory of objects",
		Long: "Print what an agent would give Envoy and the kernel for a directory of objects,\n" +
			"and why. What is wrong with the objects goes to standard error, and makes the\n" +
			"command fail after all is printed. The node is not looked at: auto stands for host\n" +
			"mode, for dnat and for both address families.",
		Args: commands.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Objects == "" {
				return usageError{Err: fmt.Errorf("--objects is required")}
			}
			if err := cfg.Validate(); err != nil {
				return usageError{Err: err}
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
	inputs, problems, err := files.Load(cfg.Objects, cfg.NodeName)
	if err != nil {
		return err
	}
	node := model.Build(inputs, cfg.Model)
	faults := slices.Concat(problems, node.Problems)
	for _, p := range faults {
		cmd.PrintErrln("nodevoy:", agent.ProblemLine(p))
	}
	desired := plan.Compile(node, cfg.Redirect)
	text, err := xds.Render(cfg.XDS, node, podTargets(desired))
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

// podTargets are those of a plan of pod mode, with paths that only name the pod: no
// node is looked at.
func podTargets(desired *plan.Plan) []model.PodTarget {
	var targets []model.PodTarget
	for _, p := range desired.Pods {
		targets = append(targets, model.PodTarget{
			Namespace: p.Namespace, Pod: p.Pod, UID: p.UID, Netns: "/run/netns/" + p.Namespace + "_" + p.Pod,
			V4: slices.ContainsFunc(p.IPs, netip.Addr.Is4), V6: slices.ContainsFunc(p.IPs, netip.Addr.Is6),
		})
	}
	return targets
}
