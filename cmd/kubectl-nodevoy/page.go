// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/cmd/internal/commands"
)

func newPage(s *sites) *cobra.Command {
	address, quiet := "127.0.0.1:0", false
	cmd := &cobra.Command{
		Use:   "page [POD | KIND/NAME]",
		Short: "Open the page of an agent in a browser: that of a node, or of the node of a pod",
		Long: "Open the page of an agent in a browser: that of the node given by --node, of the node of a pod, or else of the\n" +
			"first node. A port of this machine leads to the agent until the command is interrupted. Whoever reaches that port\n" +
			"can read what the agent knows, and change log levels.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return commands.UsageError{Err: errors.New("page takes one pod or workload at most")}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&address, "address", address, "host:port to listen on; port 0 for any that is free")
	cmd.Flags().BoolVar(&quiet, "no-open", false, "only print the URL")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		n, err := s.pageNode(ctx, args)
		if err != nil {
			return err
		}
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("listen for the browser: %w", err)
		}
		url := fmt.Sprintf("http://%s/", ln.Addr())
		fmt.Fprintf(cmd.OutOrStdout(), "The page of %s is at %s until this is interrupted.\n", n.name, url)
		if out, is := cmd.OutOrStdout().(*os.File); is && !quiet && term.IsTerminal(int(out.Fd())) {
			openBrowser(ctx, cmd.ErrOrStderr(), url)
		}
		return forward(ctx, ln, func(ctx context.Context) (net.Conn, error) { return s.opened.dial(ctx, n.agent) }, cmd.ErrOrStderr())
	}
	return cmd
}

// pageNode is the node whose page is asked for.
func (s *sites) pageNode(ctx context.Context, args []string) (node, error) {
	c, err := s.open()
	if err != nil {
		return node{}, err
	}
	nodes, err := c.nodes(ctx)
	if err != nil {
		return node{}, err
	}
	wanted := ""
	if len(args) == 1 {
		pods, err := c.podsOf(ctx, args[0])
		if err != nil {
			return node{}, err
		}
		wanted = pods[0].Spec.NodeName
	}
	for _, n := range nodes {
		if n.agent != nil && (wanted == "" || wanted == n.name) {
			return n, nil
		}
	}
	return node{}, commands.NotRunningError{Err: fmt.Errorf("%w on %s", ask.ErrNotRunning, orAny(wanted))}
}

func orAny(node string) string {
	if node == "" {
		return "any node in question"
	}
	return node
}

// forward gives each connection to ln one of dial's, until ctx ends.
func forward(ctx context.Context, ln net.Listener, dial ask.Dial, stderr io.Writer) error {
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	var g errgroup.Group
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return g.Wait()
			}
			return errors.Join(fmt.Errorf("accept the browser's connection: %w", err), ln.Close())
		}
		g.Go(func() error {
			if err := joined(ctx, conn, dial); err != nil && ctx.Err() == nil {
				fmt.Fprintln(stderr, "a connection failed:", err)
			}
			return nil
		})
	}
}

// joined copies both ways until one side ends.
func joined(ctx context.Context, conn net.Conn, dial ask.Dial) error {
	defer func() { _ = conn.Close() }()
	agent, err := dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = agent.Close() }()
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{conn, agent}, {agent, conn}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1]) // Either side may end it whenever it likes.
			ended <- struct{}{}
		}()
	}
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return nil
}

// openBrowser tries to; the URL has been printed already.
func openBrowser(ctx context.Context, stderr io.Writer, url string) {
	program := map[string][]string{"darwin": {"open"}, "windows": {"rundll32", "url.dll,FileProtocolHandler"}}[runtime.GOOS]
	if program == nil {
		program = []string{"xdg-open"}
	}
	if err := exec.CommandContext(ctx, program[0], append(program[1:], url)...).Start(); err != nil {
		fmt.Fprintln(stderr, "no browser was opened:", err)
	}
}
