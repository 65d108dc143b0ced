// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/bundle"
	"github.com/nodevoy/nodevoy/agent/check"
	"github.com/nodevoy/nodevoy/agent/why"
)

// Site is where agents are asked from.
type Site struct {
	// One says that there is one node only: what it answers is printed as it is, else
	// with the name of the node.
	One bool
	// Version is that of this program.
	Version string
	// Agents are those that are asked. A node without an agent may be among them.
	Agents func(context.Context) ([]ask.Agent, error)
	// Namespace is what was given by --namespace; empty if nothing was.
	Namespace func() string
	// Callers are the pods that somebody's words for a caller stand for, each with the
	// agent to be asked about it.
	Callers func(ctx context.Context, words string) ([]Caller, error)
	// Alone is what can be told of calls where no agent answers, which err says; may be nil.
	Alone func(ctx context.Context, from, to string, err error) why.Answer
	// Check has every node examined.
	Check func(context.Context) ([]ask.Result[check.Report], error)
	// Extra adds to a dump what agents don't know; may be nil.
	Extra func(ctx context.Context, w *bundle.Writer, node string) error
	// Explain makes of an error what a person can use; may be nil.
	Explain func(error) error
	Now     func() time.Time
}

// Caller is one pod, or whatever else calls, and who knows about it.
type Caller struct {
	// From is what the agent is asked about.
	From  string
	Agent ask.Agent
}

// limit is how long a question may take.
const limit = 15 * time.Second

// All are the commands of a site.
func All(s *Site) []*cobra.Command {
	return []*cobra.Command{
		newStatus(s), newWhy(s), newFlows(s), newServices(s), newPods(s), newXDS(s), newTop(s), newAdvise(s), newCheck(s), newDump(s),
	}
}

// ask asks every agent of the site, in bounded time.
func askAll[T any](ctx context.Context, s *Site, question func(context.Context, ask.Agent) (T, error)) ([]ask.Result[T], error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	agents, err := s.Agents(ctx)
	if err != nil {
		return nil, err
	}
	results := ask.All(ctx, agents, question)
	if s.One && results[0].Err != nil {
		return nil, s.explain(results[0].Err)
	}
	return results, nil
}

func (s *Site) explain(err error) error {
	if s.Explain == nil {
		return err
	}
	return s.Explain(err)
}

// settle says on standard error which nodes have not answered. The error is for those
// whose agent should have.
func settle[T any](stderr io.Writer, results []ask.Result[T]) error {
	var silent []string
	answered := 0
	for _, r := range results {
		switch r.State {
		case ask.Answered:
			answered++
			continue
		case ask.NoAnswer:
			silent = append(silent, r.Node)
		}
		note(stderr, r.Node, r.State, r.Error)
	}
	return unanswered(silent, answered)
}
