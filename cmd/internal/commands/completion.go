// SPDX-License-Identifier: Apache-2.0

package commands

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nodevoy/nodevoy/agent/ask"
	"github.com/nodevoy/nodevoy/agent/debug/view"
)

// completionLimit is how long a shell waits for agents.
const completionLimit = 2 * time.Second

// complete offers fixed words for a flag.
func complete(cmd *cobra.Command, flag string, words ...string) {
	offer(cmd, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// offer has a flag completed by f. Only a flag that isn't there makes it fail.
func offer(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err)
	}
}

// pods offers the names of pods that agents know.
func (s *Site) pods() cobra.CompletionFunc {
	return s.live(func(ctx context.Context, a ask.Agent) ([]string, error) {
		pods, err := ask.List[view.Pod](ctx, a, "/v1/pods", nil)
		var names []string
		for _, p := range pods {
			names = append(names, p.Namespace+"/"+p.Name)
		}
		return names, err
	})
}

// services offers the names of Services that agents know; ports says with the port.
func (s *Site) services(ports bool) cobra.CompletionFunc {
	return s.live(func(ctx context.Context, a ask.Agent) ([]string, error) {
		services, err := ask.List[view.Service](ctx, a, "/v1/services", nil)
		var names []string
		for _, one := range services {
			name := one.Namespace + "/" + one.Name
			if !ports {
				names = append(names, name)
				continue
			}
			for _, p := range one.Ports {
				names = append(names, name+":"+p.Label())
			}
		}
		return names, err
	})
}

// live offers what agents answer, as far as they do in time.
func (s *Site) live(question func(context.Context, ask.Agent) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
		defer cancel()
		agents, err := s.Agents(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var words []string
		for _, r := range ask.All(ctx, agents, question) {
			if r.Answer == nil {
				continue
			}
			for _, word := range *r.Answer {
				if strings.HasPrefix(word, begun) {
					words = append(words, word)
				}
			}
		}
		slices.Sort(words)
		return slices.Compact(words), cobra.ShellCompDirectiveNoFileComp
	}
}
