// SPDX-License-Identifier: Apache-2.0

// Command kubectl-nodevoy is a plugin of kubectl: it finds nodevoy's agents in a cluster,
// asks them by exec in their containers, and shows what they answer as one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/nodevoy/nodevoy/cmd/internal/commands"
)

// version is set by the linker (see the Makefile).
var version = "dev"

// completer is the name under which kubectl starts a plugin to complete its arguments.
const completer = "kubectl_complete-nodevoy"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// A second signal ends what the first didn't.
	context.AfterFunc(ctx, stop)
	klog.SetLogger(klog.Logger{}) // Discards what client-go says beside its errors.
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == completer {
		args = append([]string{cobra.ShellCompRequestCmd}, args...)
	}
	code := run(ctx, args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run runs the command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, context.Canceled) {
		_, _ = fmt.Fprintln(stderr, "kubectl nodevoy:", err) // Standard error is the last resort.
	}
	return commands.ExitCode(err)
}

// settings are the flags that all commands have.
type settings struct {
	overrides clientcmd.ConfigOverrides
	rules     *clientcmd.ClientConfigLoadingRules
	nodes     []string
	// namespace and selector are where nodevoy's own pods are.
	namespace, selector string
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "kubectl-nodevoy",
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl nodevoy"},
		Short:         "Ask nodevoy's agents who called whom, which pod answered, and why",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          commands.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return commands.UsageError{Err: fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	set := &settings{rules: clientcmd.NewDefaultClientConfigLoadingRules()}
	f := root.PersistentFlags()
	f.StringVar(&set.rules.ExplicitPath, "kubeconfig", "", "path of the kubeconfig file")
	clientcmd.BindOverrideFlags(&set.overrides, f, clientcmd.RecommendedConfigOverrideFlags(""))
	f.StringSliceVar(&set.nodes, "node", nil, "ask only the agent of this node; may be given several times")
	f.StringVar(&set.namespace, "nodevoy-namespace", "", "namespace of nodevoy's agents (default: looked for in all)")
	f.StringVar(&set.selector, "nodevoy-selector", "app.kubernetes.io/name=nodevoy", "label selector of nodevoy's agents")
	sites := &sites{set: set, checks: &checkPods{}}
	root.AddCommand(sites.commands()...)
	root.AddCommand(newPage(sites))
	return root
}

// sites opens the cluster when the first command needs it: help and completion of
// words don't.
type sites struct {
	set    *settings
	checks *checkPods
	opened *cluster
}

func (s *sites) open() (*cluster, error) {
	if s.opened != nil {
		return s.opened, nil
	}
	c, err := openCluster(s.set)
	s.opened = c
	return c, err
}

// commands are those that nodevoy has on a node, too.
func (s *sites) commands() []*cobra.Command {
	all := commands.All(s.site())
	for _, cmd := range all {
		if cmd.Name() == "check" {
			s.checks.flags(cmd)
		}
	}
	return all
}

func (s *sites) site() *commands.Site {
	return &commands.Site{
		Version: version, Now: time.Now,
		// The namespace of the kubeconfig's context is no filter.
		Namespace: func() string { return s.set.overrides.Context.Namespace },
		Agents:    s.agents, Callers: s.callers, Check: s.check, Extra: s.extra,
	}
}
