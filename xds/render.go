// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Render is every resource Envoy could ask for, as a stream of YAML documents:
// listeners, routes, then cluster and assignment of each frontend by address.
// Each document is preceded by the resource's kind, name and version.
func Render(cfg Config, node *model.Node, places []model.PodTarget) ([]byte, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	p := newPublished(cfg, node, places, nil)
	var out bytes.Buffer
	write := func(k kind, name string) error {
		r := p.resource(k, name)
		if r == nil {
			return nil
		}
		msg, err := r.body.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("render %s %s: %w", k, name, err)
		}
		text, err := toYAML(msg)
		if err != nil {
			return fmt.Errorf("render %s %s: %w", k, name, err)
		}
		fmt.Fprintf(&out, "---\n# %s %s, version %s\n%s", k, name, r.version, text)
		return nil
	}
	for _, name := range p.sites.names {
		if err := write(kindListener, name); err != nil {
			return nil, err
		}
	}
	if err := write(kindRoute, routeName); err != nil {
		return nil, err
	}
	for i := range node.Frontends {
		name := clusterName{frontend: node.Frontends[i].Address}.String()
		for _, k := range []kind{kindCluster, kindEndpoints} {
			if err := write(k, name); err != nil {
				return nil, err
			}
		}
	}
	return out.Bytes(), nil
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

// version is the fingerprint of a resource's bytes.
func version(body *anypb.Any) string {
	sum := sha256.Sum256(body.GetValue())
	return hex.EncodeToString(sum[:8])
}
