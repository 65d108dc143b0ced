// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent"
	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/check"
	"github.com/nodevoy/nodevoy/agent/check/examine"
	"github.com/nodevoy/nodevoy/agent/why"
	"github.com/nodevoy/nodevoy/cmd/internal/commands"
)

// asking are the commands that ask the agent of this node, by its unix socket.
func asking() []*cobra.Command {
	cfg := agent.DefaultConfig()
	cfg.NodeName, _ = os.Hostname() // A report without a name is good, too.
	namespace := ""
	site := &commands.Site{
		One: true, Version: version, Now: time.Now,
		Namespace: func() string { return namespace },
		Agents:    func(context.Context) ([]ask.Agent, error) { return []ask.Agent{ofNode(cfg)}, nil },
		Callers: func(_ context.Context, words string) ([]commands.Caller, error) {
			return []commands.Caller{{From: inNamespace(words, namespace), Agent: ofNode(cfg)}}, nil
		},
		Alone: func(ctx context.Context, from, to string, err error) why.Answer {
			return agent.Alone(ctx, cfg, why.Question{From: from, To: to}, err)
		},
		Check: func(ctx context.Context) ([]ask.Result[check.Report], error) {
			if err := errors.Join(cfg.Redirect.Validate(), cfg.Netns.Validate()); err != nil {
				return nil, usageError{Err: err}
			}
			r := check.Judge(cfg.NodeName, examine.Gather(ctx, cfg, version), time.Now())
			return []ask.Result[check.Report]{{Node: r.Node, State: ask.Answered, Answer: &r}}, nil
		},
		Explain: func(err error) error { return explain(err, "the agent", agent.DebugSocket(cfg.RunDir)) },
	}
	all := commands.All(site)
	for _, cmd := range all {
		f := cmd.Flags()
		f.StringVar(&cfg.RunDir, "run-dir", cfg.RunDir, "directory of the agent's sockets")
		switch cmd.Name() {
		case "check":
			f.StringVar(&cfg.NodeName, "node-name", cfg.NodeName, "name of this node in the report")
			f.StringVar(&cfg.MetricsAddress, "metrics-address", cfg.MetricsAddress, "host:port that an agent would serve metrics on; empty for none")
			redirectFlags(f, &cfg)
			netnsFlags(f, &cfg)
		case "why":
			f.StringVarP(&namespace, "namespace", "n", "", "namespace of the caller, if its name has none")
			netnsFlags(f, &cfg)
		case "status", "xds", "dump", "advise":
		default:
			f.StringVarP(&namespace, "namespace", "n", "", "only this namespace; names without one are in it")
		}
	}
	return all
}

func ofNode(cfg agent.Config) ask.Agent {
	return ask.Socket(cfg.NodeName, agent.DebugSocket(cfg.RunDir))
}

// inNamespace is a name of a pod, or KIND/NAME, in a namespace, if one was given and the
// name has none.
func inNamespace(words, namespace string) string {
	kinds := []string{"pod", "po", "deployment", "deploy", "statefulset", "sts", "daemonset", "ds", "job"}
	first, _, _ := strings.Cut(words, "/")
	for _, kind := range kinds {
		if first == kind {
			first = ""
		}
	}
	if namespace == "" || strings.ContainsAny(words, ".:") || first != "" && strings.Contains(words, "/") {
		return words
	}
	return namespace + "/" + words
}

// explain says in words why a request to who, at this unix socket, failed.
func explain(err error, who, socket string) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return commands.NotRunningError{Err: fmt.Errorf("%s is not running on this node: nothing listens on %s", who, socket)}
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("no permission to connect to %s: run as the user that runs %s, usually root", socket, who)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return commands.NotRunningError{Err: fmt.Errorf("%s does not answer on %s: %w", who, socket, err)}
	}
	return err
}
