// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/agent/model"
)

// view is a model.Node as goldens show it.
type view struct {
	Node      string     `json:"node"`
	Region    string     `json:"region,omitempty"`
	Zone      string     `json:"zone,omitempty"`
	Pods      []pod      `json:"pods,omitempty"`
	Frontends []frontend `json:"frontends,omitempty"`
	Problems  []string   `json:"problems,omitempty"`
}

type pod struct {
	Pod      string   `json:"pod"`
	IPs      []string `json:"ips,omitempty"`
	Enrolled bool     `json:"enrolled"`
	Reason   string   `json:"reason"`
}

type frontend struct {
	Address  string    `json:"address"`
	Port     string    `json:"port"`
	Class    string    `json:"class"`
	Why      string    `json:"why"`
	Bypass   string    `json:"bypass,omitempty"`
	Backends []backend `json:"backends,omitempty"`
}

type backend struct {
	Address     string `json:"address"`
	Pod         string `json:"pod,omitempty"`
	Node        string `json:"node,omitempty"`
	Zone        string `json:"zone,omitempty"`
	Terminating bool   `json:"terminating,omitempty"`
}

// view is the scenario's model as YAML.
func (s *Scenario) view() (string, error) {
	v := view{Node: s.Node.Name, Region: s.Node.Region, Zone: s.Node.Zone}
	for _, p := range s.Node.Pods {
		row := pod{Pod: p.Namespace + "/" + p.Name, Enrolled: p.Enrolled, Reason: p.Reason}
		for _, ip := range p.IPs {
			row.IPs = append(row.IPs, ip.String())
		}
		v.Pods = append(v.Pods, row)
	}
	for i := range s.Node.Frontends {
		v.Frontends = append(v.Frontends, viewOf(s.Node.Frontends[i]))
	}
	for _, p := range s.Problems {
		v.Problems = append(v.Problems, fmt.Sprintf("%s %s/%s %s: %s", p.Kind, p.Namespace, p.Name, p.Field, p.Detail))
	}
	text, err := yaml.Marshal(v)
	return string(text), err
}

func viewOf(f *model.Frontend) frontend {
	row := frontend{
		Address: f.Address.String(), Class: f.Class.String(), Why: f.ClassReason, Bypass: f.Bypass,
		Port: fmt.Sprintf("%s/%s/%d %s", f.Port.Namespace, f.Port.Service, f.Port.Port, f.Port.PortName),
	}
	for _, b := range f.Backends {
		r := backend{Address: b.Address.String(), Node: b.Node, Zone: b.Zone, Terminating: b.Terminating}
		if b.Pod != "" {
			r.Pod = b.Namespace + "/" + b.Pod
		}
		row.Backends = append(row.Backends, r)
	}
	return row
}
