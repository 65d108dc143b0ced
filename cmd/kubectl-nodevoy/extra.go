// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodevoy/nodevoy/agent/bundle"
)

// maxLogLines and maxLog bound what a dump has of an agent's log.
const (
	maxLogLines = int64(5000)
	maxLog      = int64(2 << 20)
)

// extra adds to a dump what Kubernetes knows of a node's agent: its log, and how its
// containers are. Envoy's log is left out: it has what callers sent.
func (s *sites) extra(ctx context.Context, w *bundle.Writer, name string) error {
	c, err := s.open()
	if err != nil {
		return err
	}
	nodes, err := c.nodes(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range nodes {
		if n.name == name && n.agent != nil {
			errs = append(errs, c.addStatus(w, name, n.agent), c.addLog(ctx, w, name, n.agent))
		}
	}
	return errors.Join(errs...)
}

func (c *cluster) addStatus(w *bundle.Writer, name string, agent *corev1.Pod) error {
	text, err := json.MarshalIndent(agent.Status, "", "  ")
	if err != nil {
		return fmt.Errorf("pod-status.json: %w", err)
	}
	return w.AddText(name+"/pod-status.json", text)
}

func (c *cluster) addLog(ctx context.Context, w *bundle.Writer, name string, agent *corev1.Pod) error {
	lines, limit := maxLogLines, maxLog
	text, err := c.client.CoreV1().Pods(agent.Namespace).GetLogs(agent.Name, &corev1.PodLogOptions{
		Container: container, TailLines: &lines, LimitBytes: &limit, Timestamps: true,
	}).DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("agent.log: %w", err)
	}
	return w.AddText(name+"/agent.log", text)
}
