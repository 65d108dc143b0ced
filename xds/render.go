// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Render is every resource Envoy could ask for, as a stream of YAML documents:
// listeners, routes, then cluster and assignment of each frontend by address.
// Each document is preceded by the resource's kind, name and version.
func Render(cfg Config, node *model.Node, targets []model.PodTarget) ([]byte, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	r := renderer{cfg: cfg, translation: NewTranslation(cfg, node, targets, nil)}
	for _, name := range r.translation.Listeners().Names {
		if err := r.write(KindListener, name); err != nil {
			return nil, err
		}
	}
	if err := r.write(KindRoute, RouteName); err != nil {
		return nil, err
	}
	for i := range node.Frontends {
		name := clusterName{frontend: node.Frontends[i].Address}.String()
		for _, k := range []Kind{KindCluster, KindEndpoints} {
			if err := r.write(k, name); err != nil {
				return nil, err
			}
		}
	}
	return r.out.Bytes(), nil
}

// renderer writes resources as YAML.
type renderer struct {
	cfg         Config
	translation *Translation
	// version is that of the resource written last.
	version string
	out     bytes.Buffer
}

// write adds the resource of this name, if there is one.
func (r *renderer) write(k Kind, name string) error {
	// The cluster is written just before its assignment.
	inputs := r.translation.Inputs(k, name, func(Kind, string) string { return r.version })
	if inputs == nil {
		return nil
	}
	m := inputs.Message(r.cfg)
	r.version = NewResource(m).Version
	text, err := toYAML(m)
	if err != nil {
		return fmt.Errorf("render %s %s: %w", k, name, err)
	}
	fmt.Fprintf(&r.out, "---\n# %s %s, version %s\n%s", k, name, r.version, text)
	return nil
}

// toYAML writes a message as Envoy's documentation does, with keys sorted.
func toYAML(m proto.Message) ([]byte, error) {
	json, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", m, err)
	}
	text, err := yaml.JSONToYAML(json)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", m, err)
	}
	return text, nil
}
