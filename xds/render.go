// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Render is every resource that Envoy could request, as a stream of YAML documents:
// listeners, routes, then cluster and assignment of each frontend by address: one for
// HTTP/1.1, or else for plain bytes. A comment above each document has the resource's
// kind, name and version.
func Render(cfg Config, node *model.Node, targets []model.PodTarget) ([]byte, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("render: %w", err)
	}
	var out bytes.Buffer
	t, version := NewTranslation(cfg, node, targets, nil), ""
	write := func(k Kind, name string) error {
		// A cluster is written just before its assignment.
		inputs := t.Inputs(k, name, func(Kind, string) string { return version })
		if inputs == nil {
			return nil
		}
		m := inputs.Message(cfg)
		version = NewResource(m).Version
		json, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		var text []byte
		if err == nil {
			text, err = yaml.JSONToYAML(json)
		}
		if err != nil {
			return fmt.Errorf("render %s %s: %w", k, name, err)
		}
		fmt.Fprintf(&out, "---\n# %s %s, version %s\n%s", k, name, version, text)
		return nil
	}
	var errs []error
	for _, name := range t.Listeners().Names {
		errs = append(errs, write(KindListener, name))
	}
	for _, name := range t.Listeners().routeNames(cfg) {
		errs = append(errs, write(KindRoute, name))
	}
	for _, f := range node.Frontends {
		name := clusterName{frontend: f.Address, form: formHTTP1}
		if f.Class == model.ClassTCP {
			name.form = formTCP
		}
		errs = append(errs, write(KindCluster, name.String()), write(KindEndpoints, name.String()))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
