// SPDX-License-Identifier: Apache-2.0

// Package scenario reads scenarios: Kubernetes objects in, and all that nodevoy
// makes of them out. One is a txtar file in testdata. Its comment says what it
// shows; cluster.yaml has the objects, settings.yaml, which may be missing, the
// settings; the rest are goldens that `go test ./test/scenario -update` writes.
// Those of host mode are applied to a real kernel by test/netns; those in podmode
// are of pod mode.
package scenario

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"github.com/nodevoy/nodevoy/agent/files"
	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/xds"
)

// The sections of a scenario.
const (
	clusterSection  = "cluster.yaml"
	settingsSection = "settings.yaml"
	ModelSection    = "model.yaml"
	XDSSection      = "xds.yaml"
	RulesSection    = "iptables.rules"
	SetsSection     = "ipset.save"
	// TargetsSection has rules and sets of pod mode.
	TargetsSection = "targets.txt"
)

// nodeName is the node that every scenario is about.
const nodeName = "node1"

// goldens are the sections that are written, in the order of the file.
func (s *Scenario) goldens() []string {
	if s.chosen.Mode == plan.PodMode {
		return []string{ModelSection, XDSSection, TargetsSection}
	}
	return []string{ModelSection, XDSSection, RulesSection, SetsSection}
}

// settings are what a scenario may choose.
type settings struct {
	// Mode is host if nothing is said.
	Mode      plan.Mode      `json:"mode,omitempty"`
	Mechanism plan.Mechanism `json:"mechanism,omitempty"`
	// IPv4Only leaves IPv6 alone, as on a node without it.
	IPv4Only bool `json:"ipv4Only,omitempty"`
	// WholeXDS keeps listeners and routes in the golden. They follow from the
	// settings, not from the objects, so most scenarios leave them out.
	WholeXDS bool `json:"wholeXDS,omitempty"`
}

// Scenario is one scenario, computed.
type Scenario struct {
	Name string
	Node *model.Node
	// Problems are those of the objects and of the model.
	Problems []model.Problem
	Redirect plan.Config
	XDS      xds.Config
	Plan     *plan.Plan

	path    string
	archive *txtar.Archive
	chosen  settings
}

// All lists the scenario files below a directory, sorted.
func All(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if filepath.Ext(f) != ".txtar" {
			return nil, fmt.Errorf("%s is no scenario: want *.txtar", f)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no scenarios in %s", dir)
	}
	return files, nil
}

// Load reads a scenario and computes it; scratch is an empty directory that it
// may write to.
func Load(path, scratch string) (*Scenario, error) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	s := &Scenario{Name: strings.TrimSuffix(filepath.Base(path), ".txtar"), path: path, archive: archive}
	chosen := &s.chosen
	if text := s.section(settingsSection); text != "" {
		if err := yaml.UnmarshalStrict([]byte(text), chosen); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, settingsSection, err)
		}
	}
	cluster := s.section(clusterSection)
	if cluster == "" {
		return nil, fmt.Errorf("%s has no %s", path, clusterSection)
	}
	if err := os.WriteFile(filepath.Join(scratch, clusterSection), []byte(cluster), 0o600); err != nil {
		return nil, err
	}
	inputs, problems, err := files.Load(scratch, nodeName)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s.configure()
	options := model.DefaultOptions()
	options.HostMode = s.Redirect.Mode != plan.PodMode
	options.ListenerAddresses = []netip.Addr{s.Redirect.Address4, s.Redirect.Address6}
	s.Node = model.Build(inputs, options)
	s.Problems = slices.Concat(problems, s.Node.Problems)
	s.Plan = plan.Compile(s.Node, s.Redirect)
	return s, nil
}

func (s *Scenario) configure() {
	r := plan.DefaultConfig()
	r.Mechanism, r.Backend = plan.DNAT, netfilter.NFT
	if s.chosen.Mechanism != "" {
		r.Mechanism = s.chosen.Mechanism
	}
	x := xds.Default()
	x.NodeID, x.Address4, x.Address6 = nodeName, r.Address4, r.Address6
	x.Ports = r.Ports
	x.Transparent = r.Mechanism == plan.TPROXY
	if s.chosen.IPv4Only {
		r.Families = []family.Family{family.V4}
		x.Address6 = netip.Addr{}
	}
	if s.chosen.Mode == plan.PodMode {
		r.Mode = plan.PodMode
		x.PodMode, x.UpstreamMark = true, r.Mark
		x.Address4 = family.V4.Loopback()
		if x.Address6.IsValid() {
			x.Address6 = family.V6.Loopback()
		}
	}
	s.Redirect, s.XDS = r, x
}

// targets are the pods in which Envoy listens in pod mode, had the container runtime named
// network namespaces after their pods.
func (s *Scenario) targets() []model.PodTarget {
	var out []model.PodTarget
	for i := range s.Plan.Pods {
		p := &s.Plan.Pods[i]
		target := model.PodTarget{Namespace: p.Namespace, Pod: p.Pod, UID: p.UID, Netns: "/run/netns/" + p.Pod}
		for _, f := range p.Families {
			target.V4 = target.V4 || f.Family == family.V4
			target.V6 = target.V6 || f.Family == family.V6
		}
		out = append(out, target)
	}
	return out
}

// section is the text of a section; empty without it.
func (s *Scenario) section(name string) string {
	for _, f := range s.archive.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

// Golden is what the file says a section is.
func (s *Scenario) Golden(name string) string { return s.section(name) }

// Compute makes every golden section again.
func (s *Scenario) Compute() (map[string]string, error) {
	view, err := s.view()
	if err != nil {
		return nil, err
	}
	resources, err := xds.Render(s.XDS, s.Node, s.targets())
	if err != nil {
		return nil, err
	}
	documents := string(resources)
	if !s.chosen.WholeXDS {
		documents = withoutConstant(documents)
	}
	if s.chosen.Mode == plan.PodMode {
		return map[string]string{ModelSection: view, XDSSection: documents, TargetsSection: s.Plan.Render()}, nil
	}
	var rules, sets strings.Builder
	for i := range s.Plan.Families {
		f := &s.Plan.Families[i]
		fmt.Fprintf(&rules, "# %s\n%s", f.Family, f.RenderRules())
		fmt.Fprintf(&sets, "# %s\n%s", f.Family, f.RenderSets())
	}
	return map[string]string{ModelSection: view, XDSSection: documents, RulesSection: rules.String(), SetsSection: sets.String()}, nil
}

// withoutConstant is a stream of resources less those that every scenario of
// the same settings has. Of the listeners of pods, the names are left.
func withoutConstant(resources string) string {
	var kept strings.Builder
	for _, document := range strings.Split(resources, "---\n")[1:] {
		if !strings.HasPrefix(document, "# listener ") && !strings.HasPrefix(document, "# route ") {
			kept.WriteString("---\n" + document)
		} else if head, _, _ := strings.Cut(document, ", version"); strings.Contains(head, "/") {
			kept.WriteString("---\n" + head + "\n")
		}
	}
	return kept.String()
}

// Update writes the goldens into the file, and drops sections that are neither
// input nor golden.
func (s *Scenario) Update(computed map[string]string) error {
	kept := slices.DeleteFunc(slices.Clone(s.archive.Files), func(f txtar.File) bool {
		return f.Name != clusterSection && f.Name != settingsSection
	})
	for _, name := range s.goldens() {
		kept = append(kept, txtar.File{Name: name, Data: []byte(computed[name])})
	}
	return os.WriteFile(s.path, txtar.Format(&txtar.Archive{Comment: s.archive.Comment, Files: kept}), 0o644)
}

// Orphans are sections that are neither input nor golden.
func (s *Scenario) Orphans() []string {
	var names []string
	for _, f := range s.archive.Files {
		if f.Name != clusterSection && f.Name != settingsSection && !slices.Contains(s.goldens(), f.Name) {
			names = append(names, f.Name)
		}
	}
	return names
}
