// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/go-logr/zapr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/debug/view"
	"github.com/nodevoy/nodevoy/cmd/internal/commands"
)

func newAgent() *cobra.Command {
	cfg := agent.DefaultConfig()
	logLevel, logFormat := "info", "json"
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the node's agent until it is told to stop",
		Args:  commands.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Validate(); err != nil {
				return usageError{Err: err}
			}
			log, level, err := newLogger(logLevel, logFormat)
			if err != nil {
				return usageError{Err: err}
			}
			cfg.Version, cfg.LogLevel, cfg.Flags = version, level, settings(cmd.Flags())
			defer func() { _ = log.Sync() }() // Standard error can't be synced on Linux.
			klog.SetLogger(zapr.NewLogger(log.Named("client-go")))
			a, err := agent.New(cmd.Context(), cfg, log)
			if err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	nodeFlags(f, &cfg)
	socketFlags(f, &cfg)
	redirectFlags(f, &cfg)
	netnsFlags(f, &cfg)
	envoyFlags(f, &cfg)
	modelFlags(f, &cfg)
	f.StringVar(&cfg.Objects, "objects", cfg.Objects, "read objects from the YAML files in this directory instead of an API server")
	f.StringVar(&cfg.Kubeconfig, "kubeconfig", cfg.Kubeconfig, "file that leads to the API server (default: the pod's service account)")
	f.StringVar(&cfg.MetricsAddress, "metrics-address", cfg.MetricsAddress, "host:port of /metrics, /healthz and /readyz; empty turns them off")
	f.StringVar(&cfg.DebugAddress, "debug-address", cfg.DebugAddress, "loopback IP:port of the debug endpoint, such as 127.0.0.1:23719, besides the agent's unix socket; every pod in the node's network reaches it")
	f.BoolVar(&cfg.DebugPprof, "debug-pprof", cfg.DebugPprof, "serve profiles of the agent at /debug/pprof/ on its unix socket")
	f.DurationVar(&cfg.Debounce, "debounce", cfg.Debounce, "how long a change waits for others to be applied with it")
	f.DurationVar(&cfg.StuckAfter, "stuck-after", cfg.StuckAfter, "age of an unapplied change from which /healthz fails")
	f.BoolVar(&cfg.CleanupOnExit, "cleanup-on-exit", cfg.CleanupOnExit, "remove all rules when told to stop, instead of leaving them for the next agent")
	f.DurationVar(&cfg.DrainTimeout, "drain-timeout", cfg.DrainTimeout, "how long an agent that cleans up waits for Envoy's connections to end; 0 for not at all")
	f.StringVar(&cfg.HostDir, "host-dir", cfg.HostDir, "directory shared by all agents started on this node, where they take turns (default: the run directory)")
	f.StringVar(&logLevel, "log-level", logLevel, "debug, info, warn or error")
	f.StringVar(&logFormat, "log-format", logFormat, "json or console")
	return cmd
}

// settings are all flags, as the debug endpoint shows them. None of them is secret.
func settings(f *pflag.FlagSet) []view.Flag {
	var all []view.Flag
	f.VisitAll(func(one *pflag.Flag) {
		if one.Name != "help" {
			all = append(all, view.Flag{Name: one.Name, Value: one.Value.String(), Given: one.Changed})
		}
	})
	return all
}

// newLogger logs to standard error, from a level on that can be changed.
func newLogger(level, format string) (*zap.Logger, *zap.AtomicLevel, error) {
	var cfg zap.Config
	switch format {
	case "json":
		cfg = zap.NewProductionConfig()
		cfg.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	case "console":
		cfg = zap.NewDevelopmentConfig()
		cfg.Development = false
	default:
		return nil, nil, fmt.Errorf("--log-format %q is neither json nor console", format)
	}
	lvl, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, nil, fmt.Errorf("--log-level: %w", err)
	}
	cfg.Level = zap.NewAtomicLevelAt(lvl)
	cfg.DisableStacktrace = true
	log, err := cfg.Build()
	if err != nil {
		return nil, nil, fmt.Errorf("make the logger: %w", err)
	}
	return log, &cfg.Level, nil
}
