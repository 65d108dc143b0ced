// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/cmd/internal/commands"
	"github.com/nodevoy/nodevoy/redirect/netns"
)

func newCleanup() *cobra.Command {
	cfg := agent.DefaultConfig()
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything nodevoy put into this node's kernel, and into its pods' network namespaces",
		Args:  commands.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(cfg.Redirect.Validate(), cfg.Netns.Validate()); err != nil {
				return usageError{Err: err}
			}
			return errors.Join(cleanHost(cmd.Context(), cfg), cleanPods(cmd.Context(), cfg))
		},
	}
	redirectFlags(cmd.Flags(), &cfg)
	netnsFlags(cmd.Flags(), &cfg)
	return cmd
}

func cleanHost(ctx context.Context, cfg agent.Config) error {
	err := agent.CleanHost(ctx, cfg, zap.NewNop())
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
