// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/nodevoy/nodevoy/test/lab"
	"github.com/nodevoy/nodevoy/test/lab/echo"
)

//go:embed sidecar.yaml
var sidecarTemplate string

// sidecar is what sidecar.yaml is rendered with.
type sidecar struct {
	// Admin is the path of the admin socket.
	Admin    string
	Ports    []sidecarPort
	Backends []sidecarBackend
	// HTTPLog and TCPLog are the access log, as JSON.
	HTTPLog, TCPLog string
}

// sidecarPort is a port of the Service, where its connections are redirected to
// in the pod, and the backends' port.
type sidecarPort struct {
	Name                     string
	HTTP                     bool
	Service, Listen, Backend int
}

// sidecarBackend is one of the Service's pods: its address, and its name as the
// access log has it.
type sidecarBackend struct{ Address, Pod string }

// startSidecar starts Envoy in the path's pod with a plain configuration, has
// the pod's connections to the Service redirected to it, and gives it the same
// access log as the node's Envoy.
func (p *path) startSidecar(ctx context.Context, nodes *lab.Envoy, web []*lab.Pod) (err error) {
	with := sidecar{Admin: p.from.SidecarAdmin(), Ports: []sidecarPort{
		{Name: "http", HTTP: true, Service: 80, Listen: 15001, Backend: echo.HTTPPort},
		{Name: "grpc", HTTP: true, Service: echo.GRPCPort, Listen: 15002, Backend: echo.GRPCPort},
		{Name: "tcp", Service: echo.TCPPort, Listen: 15003, Backend: echo.TCPPort},
		{Name: "http-bulk", HTTP: true, Service: 81, Listen: 15004, Backend: bulkPort},
		{Name: "tcp-bulk", Service: 82, Listen: 15005, Backend: bulkPort},
		{Name: "http-delayed", HTTP: true, Service: 83, Listen: 15006, Backend: delayedPort},
	}}
	for _, pod := range web {
		with.Backends = append(with.Backends, sidecarBackend{pod.IPs[0].String(), pod.Namespace + "/" + pod.Name})
	}
	if with.HTTPLog, with.TCPLog, err = accessLogs(ctx, nodes); err != nil {
		return err
	}
	parsed, err := template.New("sidecar").Parse(sidecarTemplate)
	if err != nil {
		return fmt.Errorf("parse sidecar.yaml: %w", err)
	}
	var config strings.Builder
	if err := parsed.Execute(&config, with); err != nil {
		return fmt.Errorf("render sidecar.yaml: %w", err)
	}
	if p.envoy, err = p.from.StartSidecar(ctx, config.String()); err != nil {
		return err
	}
	for _, port := range with.Ports {
		_, err := p.from.Run(ctx, "iptables", "-w", "-t", "nat", "-A", "OUTPUT", "-d", serviceIP, "-p", "tcp",
			"--dport", strconv.Itoa(port.Service), "-j", "REDIRECT", "--to-ports", strconv.Itoa(port.Listen))
		if err != nil {
			return err
		}
	}
	return nil
}

// accessLog is one access log, whole, and its name.
type accessLog struct {
	Name string
	text json.RawMessage
}

// UnmarshalJSON keeps the text.
func (l *accessLog) UnmarshalJSON(text []byte) error {
	var name struct {
		Name string `json:"name"`
	}
	err := json.Unmarshal(text, &name)
	l.Name, l.text = name.Name, slices.Clone(text)
	return err
}

// accessLogs are the access logs, as JSON, that an Envoy writes of requests and
// of connections.
func accessLogs(ctx context.Context, envoy *lab.Envoy) (http, tcp string, err error) {
	text, err := envoy.Admin(ctx, "/config_dump?resource=dynamic_listeners")
	if err != nil {
		return "", "", err
	}
	var dump struct {
		Configs []struct {
			State struct {
				Listener struct {
					Chains []struct {
						Filters []struct {
							Name   string `json:"name"`
							Config struct {
								AccessLog []accessLog `json:"access_log"`
							} `json:"typed_config"`
						} `json:"filters"`
					} `json:"filter_chains"`
				} `json:"listener"`
			} `json:"active_state"`
		} `json:"configs"`
	}
	if err := json.Unmarshal([]byte(text), &dump); err != nil {
		return "", "", fmt.Errorf("parse Envoy's listeners: %w", err)
	}
	logs := map[string]string{}
	for _, listener := range dump.Configs {
		for _, chain := range listener.State.Listener.Chains {
			for _, filter := range chain.Filters {
				for _, log := range filter.Config.AccessLog {
					// The others go to the agent.
					if log.Name == "stdout" {
						logs[filter.Name] = "[" + string(log.text) + "]"
					}
				}
			}
		}
	}
	if logs["http"] == "" || logs["tcp"] == "" {
		return "", "", fmt.Errorf("no access log among Envoy's listeners: %v", logs)
	}
	return logs["http"], logs["tcp"], nil
}
