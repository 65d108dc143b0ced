// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/bundle"
)

// dumpLimit bounds the collection; what isn't there by then is missing from the archive.
const dumpLimit = 25 * time.Second

func newDump(s *Site) *cobra.Command {
	file := "-"
	cmd := &cobra.Command{
		Use:   "dump",
		Short: "Write all that agents and Envoys tell of themselves into one archive",
		Long: "Write all that agents and Envoys tell of themselves into one archive (tar.gz), to hand to others. It has no\n" +
			"credentials, no headers and no queries of URLs. It has names, labels, addresses and paths. index.json\n" +
			"names the nodes and what could not be had of them.",
		Args: NoArgs,
	}
	f := cmd.Flags()
	if !s.One {
		file = ""
	}
	f.StringVarP(&file, "file", "f", file, "file to write, - for standard output; by default nodevoy-dump-TIME.tar.gz with kubectl, and standard output on a node")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		root := "nodevoy-dump-" + s.Now().UTC().Format("20060102T150405Z")
		if file == "" {
			file = root + ".tar.gz"
		}
		if file != "-" {
			return dumpFile(cmd, s, root, file)
		}
		if out, is := cmd.OutOrStdout().(*os.File); is && term.IsTerminal(int(out.Fd())) {
			return UsageError{errors.New("an archive is nothing for a terminal: use -f FILE, or redirect it")}
		}
		return dump(cmd, s, root, cmd.OutOrStdout())
	}
	return cmd
}

func dumpFile(cmd *cobra.Command, s *Site, root, file string) error {
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make the archive: %w", err)
	}
	if err := errors.Join(dump(cmd, s, root, out), out.Close()); err != nil {
		return err
	}
	say(cmd.ErrOrStderr(), "wrote %s", file)
	return nil
}

func dump(cmd *cobra.Command, s *Site, root string, to io.Writer) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), dumpLimit)
	defer cancel()
	agents, err := s.Agents(ctx)
	if err != nil {
		return err
	}
	w := bundle.New(to, root, s.Now())
	results := ask.All(ctx, agents, func(ctx context.Context, a ask.Agent) ([]string, error) { return dumpNode(ctx, s, w, a) })
	outcomes := make([]bundle.Outcome, 0, len(results))
	for _, r := range results {
		one := bundle.Outcome{Node: r.Node, Missing: []string{}}
		if r.Answer != nil {
			one.Missing = *r.Answer
		} else {
			one.Missing = append(one.Missing, r.Error)
		}
		for _, line := range one.Missing {
			say(cmd.ErrOrStderr(), "%s: not in the archive: %s", nodeOr(r.Node), line)
		}
		outcomes = append(outcomes, one)
	}
	if err := w.Close(s.Version, outcomes); err != nil {
		return err
	}
	if s.One && results[0].Err != nil {
		return s.explain(results[0].Err)
	}
	return settle(io.Discard, results)
}

// dumpNode writes what there is of a node, and returns what is missing. A node of which
// there is nothing has not answered.
func dumpNode(ctx context.Context, s *Site, w *bundle.Writer, a ask.Agent) ([]string, error) {
	prefix := ""
	if !s.One {
		prefix = a.Node + "/"
	}
	got, err := w.Files(ctx, prefix, a)
	missing := bundle.Missing(err)
	if s.Extra != nil {
		missing = append(missing, bundle.Missing(s.Extra(ctx, w, a.Node))...)
	}
	if got == 0 && err != nil {
		return nil, err
	}
	return missing, nil
}

func nodeOr(name string) string {
	if name == "" {
		return "this node"
	}
	return name
}
