// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// RedirectLabel opts a Namespace or a Pod in (RedirectEnabled) or out
// (RedirectDisabled), and a Service out. Any other value is a Problem and
// counts as no label at all.
const (
	RedirectLabel    = "nodevoy.io/redirect"
	RedirectEnabled  = "enabled"
	RedirectDisabled = "disabled"
)

// Options are the choices of the node's owner that shape a Node.
type Options struct {
	// OpaquePorts are the Service ports that are class tcp unless the Service
	// declares their protocol: server-first protocols, which sniffing would
	// stall, and those that are never HTTP.
	OpaquePorts []uint16
	// Undeclared is what becomes of ports whose protocol nothing declares. The zero value
	// is UndeclaredLikely.
	Undeclared Undeclared
	// ExcludedNamespaces are never touched: their pods are not enrolled,
	// whatever the labels say, and their Services are left to kube-proxy.
	ExcludedNamespaces []string
	// NamespaceSelector says by its labels which namespaces opt their pods in.
	// A namespace with RedirectDisabled is out all the same. The zero value is
	// the label RedirectEnabled.
	NamespaceSelector Selector
	// HostMode is set where Envoy calls backends from the node's address. Labels
	// and endpoints that tenants write count for less there: they would let a pod
	// pass rules that keep it out.
	HostMode bool
	// PodOptInNamespaces are those in which a pod's own label may enroll it in host
	// mode; AllNamespaces stands for all. In pod mode it may in every namespace.
	PodOptInNamespaces []string
	// ExcludedEndpoints are networks that Envoy must not call in host mode, besides
	// those that it never may: a frontend with a backend there is left to kube-proxy.
	ExcludedEndpoints []netip.Prefix
	// ListenerAddresses are where Envoy listens in host mode.
	ListenerAddresses []netip.Addr
	// ListenerPorts are the ports that Envoy may listen on in enrolled pods: a pod that
	// declares one needs it itself. None in host mode.
	ListenerPorts []uint16
	// TelemetryAnnotations is set if namespaces may choose what of their pods' calls is
	// logged and traced. It has no effect in host mode.
	TelemetryAnnotations bool
}

// AllNamespaces stands for every namespace in PodOptInNamespaces.
const AllNamespaces = "*"

// DefaultOptions are the options of an agent that was told nothing.
func DefaultOptions() Options {
	return Options{
		OpaquePorts: []uint16{
			21, 22, 25, 110, 143, 389, 587, 873, 993, 995, 3306, 3307, 4222, 4444, 5432, 5900, 6379, 6667, 9300, 11211, 27017,
		},
		Undeclared:         UndeclaredLikely,
		ExcludedNamespaces: []string{"kube-system"},
	}
}

// Validate reports every option that can't be meant as it is.
func (o Options) Validate() error {
	var errs []error
	if slices.Contains(o.OpaquePorts, 0) {
		errs = append(errs, errors.New("opaque ports: 0 is not a port"))
	}
	if err := new(Undeclared).UnmarshalText([]byte(o.Undeclared)); err != nil && o.Undeclared != "" {
		errs = append(errs, err)
	}
	check := func(what string, namespaces []string) {
		for _, ns := range namespaces {
			if ns == "" || strings.ContainsAny(ns, " ,/*") {
				errs = append(errs, fmt.Errorf("%s: %q is not a namespace name", what, ns))
			}
		}
	}
	check("excluded namespaces", o.ExcludedNamespaces)
	if !slices.Equal(o.PodOptInNamespaces, []string{AllNamespaces}) {
		check("pod opt-in namespaces", o.PodOptInNamespaces)
	}
	return errors.Join(errs...)
}

// podsOptIn says whether pods of the namespace may enroll themselves.
func (o *Options) podsOptIn(namespace string) bool {
	return !o.HostMode || slices.Contains(o.PodOptInNamespaces, namespace) || slices.Contains(o.PodOptInNamespaces, AllNamespaces)
}

// excluded says whether the namespace is never touched.
func (o *Options) excluded(namespace string) bool {
	return slices.Contains(o.ExcludedNamespaces, namespace)
}

// Selector selects objects by their labels, written as `kubectl get -l` takes
// it. The zero value selects by RedirectLabel=RedirectEnabled.
type Selector struct {
	parsed labels.Selector
}

// String is the selector as it is written.
func (s Selector) String() string {
	if s.parsed == nil {
		return RedirectLabel + "=" + RedirectEnabled
	}
	return s.parsed.String()
}

// MarshalText writes the selector as flags do.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a selector. An empty one is refused: it would opt in
// every namespace there is.
func (s *Selector) UnmarshalText(text []byte) error {
	parsed, err := labels.Parse(string(text))
	if err != nil {
		return fmt.Errorf("%q is no label selector: %w", text, err)
	}
	if parsed.Empty() {
		return fmt.Errorf("%q selects everything", text)
	}
	s.parsed = parsed
	return nil
}

func (s Selector) matches(set map[string]string) bool {
	if s.parsed == nil {
		return set[RedirectLabel] == RedirectEnabled
	}
	return s.parsed.Matches(labels.Set(set))
}
