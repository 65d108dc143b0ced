// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"slices"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/nodevoy/nodevoy/agent/model"
)

// kind is a type of resource, in the order in which Envoy must be told of
// changes: a cluster before its endpoints, both before what may name them.
type kind uint8

const (
	kindCluster kind = iota
	kindEndpoints
	kindListener
	kindRoute
	kindCount
)

// String is the kind as logs, metrics and tables write it.
func (k kind) String() string {
	return [kindCount]string{"cluster", "endpoints", "listener", "route"}[k]
}

func (k kind) typeURL() string {
	return [kindCount]string{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType}[k]
}

// kindOf finds the kind of a type URL; false for one that is never served.
func kindOf(typeURL string) (kind, bool) {
	for k := range kindCount {
		if k.typeURL() == typeURL {
			return k, true
		}
	}
	return 0, false
}

// resource is one Envoy resource, ready to be sent.
type resource struct {
	body    *anypb.Any
	version string
	// frontend is what a cluster or an assignment was made of, and site what a
	// listener was.
	frontend *model.Frontend
	site     site
}

// published is one published node. Its resources are made when first asked
// for, and taken over from the one before when what they are made of is the
// same. It is not safe for concurrent use.
type published struct {
	cfg   Config
	node  *model.Node
	sites *sites
	// override, for tests, may change a message before it is marshalled.
	override func(name string, m proto.Message)
	before   *published
	made     [kindCount]map[string]*resource
}

// newPublished prepares a node and the places for serving; before, which may be nil, is the
// one it replaces.
func newPublished(cfg Config, node *model.Node, places []model.PodTarget, before *published) *published {
	p := &published{cfg: cfg, node: node, before: before}
	for k := range p.made {
		p.made[k] = map[string]*resource{}
	}
	if before == nil {
		p.sites = newSites(cfg, places, nil)
		return p
	}
	p.sites = newSites(cfg, places, before.sites)
	p.override = before.override
	if p.override == nil && p.sites == before.sites {
		p.made[kindListener] = before.made[kindListener]
	}
	before.before = nil
	return p
}

// resource finds or makes the one of this name; nil when there is none.
func (p *published) resource(k kind, name string) *resource {
	if r, ok := p.made[k][name]; ok {
		return r
	}
	r := p.carriedOver(k, name)
	if r == nil {
		r = p.make(k, name)
	}
	if r != nil {
		// Names that do not exist are not remembered: there is no end to them.
		p.made[k][name] = r
	}
	return r
}

// carriedOver is the resource as it was before, if it would be made the same
// again: comparing is far cheaper than making.
func (p *published) carriedOver(k kind, name string) *resource {
	if p.before == nil || p.override != nil {
		return nil
	}
	r := p.before.made[k][name]
	switch {
	case r == nil || k == kindRoute:
		return r // The routes depend on the configuration alone.
	case k == kindListener:
		if at, ok := p.sites.byName[name]; !ok || at != r.site {
			return nil
		}
		return r
	}
	f, _ := p.frontend(name)
	if f == nil || f.Port != r.frontend.Port {
		return nil
	}
	if k == kindEndpoints && !slices.Equal(f.Backends, r.frontend.Backends) {
		return nil
	}
	return &resource{body: r.body, version: r.version, frontend: f}
}

func (p *published) make(k kind, name string) *resource {
	switch k {
	case kindListener:
		if at, ok := p.sites.byName[name]; ok {
			r := p.finish(name, listener(p.cfg, name, at), nil)
			r.site = at
			return r
		}
	case kindRoute:
		if name == routeName {
			return p.finish(name, RouteConfiguration(p.cfg, p.node), nil)
		}
	case kindCluster:
		if f, n := p.frontend(name); f != nil {
			return p.finish(name, cluster(p.cfg, f, n), f)
		}
	case kindEndpoints:
		if f, n := p.frontend(name); f != nil {
			return p.finish(name, assignment(f, n, p.resource(kindCluster, name).version), f)
		}
	}
	return nil
}

// frontend finds the one that the cluster of this name is for; nil when Envoy
// has no business with it.
func (p *published) frontend(name string) (*model.Frontend, clusterName) {
	n, ok := parseClusterName(name)
	if !ok {
		return nil, n
	}
	f, ok := p.node.Frontend(n.frontend)
	if !ok || f.Bypass != "" {
		return nil, n
	}
	return f, n
}

func (p *published) finish(name string, m proto.Message, f *model.Frontend) *resource {
	if p.override != nil {
		p.override(name, m)
	}
	body := pack(m)
	return &resource{body: body, version: version(body), frontend: f}
}

// sortedKeys are the keys of a set, in order.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
