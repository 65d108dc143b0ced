// SPDX-License-Identifier: Apache-2.0

package why

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/nodevoy/nodevoy/agent/model"
)

// Question is who calls what, as somebody wrote it.
type Question struct {
	// From is namespace/pod, namespace/workload or an IP address.
	From string
	// To is SERVICE:PORT or IP:PORT. SERVICE is a name in the caller's namespace,
	// namespace/name, or what clients dial, like name.namespace.svc; PORT is a name or a
	// number.
	To string
}

// Pair is what a question is about.
type Pair struct {
	From Source
	To   Destination
}

// Source is the caller.
type Source struct {
	Asked string
	// Namespace and Name are the pod's, or those that were asked for.
	Namespace, Name string
	// Pod is nil if it is none of this node's, or not one alone.
	Pod *model.Pod
	// IP is the address that calls come from: of the destination's family, if the pod
	// has one of it.
	IP netip.Addr
	// Workload is set if the question named one, of which Pod is one of Number.
	Workload string
	Number   int
	// Elsewhere is the node that a pod is on which is not on this one.
	Elsewhere string
	// Own says that the address is the node's.
	Own bool
}

// kind is what a destination is.
type kind int

const (
	// isFrontend: an address of a Service's port, the only thing that is redirected.
	isFrontend kind = iota
	isNoService
	isNoHost
	isNoPort
	isNotTCP
	isHeadless
	isExternal
	isAddressless
	isPod
	isNode
	isUnknown
)

// Destination is what is called.
type Destination struct {
	Asked string
	kind  kind
	// Namespace and Name are the Service's that was asked for or found.
	Namespace, Name string
	// Port is the Service's, PortName what was asked for where there is none.
	Port     uint16
	PortName string
	Address  netip.AddrPort
	// Service is that of the name or address, as far as there is one.
	Service model.Service
	// Frontend is nil unless the destination is one. Others are the same port's at other
	// addresses.
	Frontend *model.Frontend
	Others   []*model.Frontend
	Owner    model.Owner
	Similar  []string
}

// Resolve finds out what a question is about. The error says what can't be understood.
func Resolve(node *model.Node, q Question) (Pair, error) {
	pair := Pair{From: Source{Asked: q.From}, To: Destination{Asked: q.To}}
	if q.From == "" || q.To == "" {
		return pair, fmt.Errorf("both ends of the call are needed: from which pod, to which Service and port")
	}
	if err := pair.From.resolve(node); err != nil {
		return pair, err
	}
	err := pair.To.resolve(node, &pair.From)
	pair.From.choose(pair.To.Address.Addr())
	return pair, err
}

// resolve finds the pod.
func (s *Source) resolve(node *model.Node) error {
	if ip, err := netip.ParseAddr(s.Asked); err == nil {
		s.IP = ip.Unmap()
		for i := range node.Pods {
			if slices.Contains(node.Pods[i].IPs, s.IP) {
				s.take(&node.Pods[i])
				return nil
			}
		}
		owner := node.OwnerOf(s.IP)
		s.Namespace, s.Name, s.Own = owner.Namespace, owner.Pod, owner.Node == node.Name
		if !s.Own {
			s.Elsewhere = owner.Node
		}
		return nil
	}
	namespace, name, err := objectName(s.Asked, []string{"pod", "po", "deployment", "deploy", "statefulset", "sts", "daemonset", "ds", "job"}, "default")
	if err != nil {
		return fmt.Errorf("from %q: %w: want namespace/pod, namespace/workload or an IP address", s.Asked, err)
	}
	s.Namespace, s.Name = namespace, name
	var of []*model.Pod
	for i := range node.Pods {
		pod := &node.Pods[i]
		switch {
		case pod.Namespace != namespace:
		case pod.Name == name:
			s.take(pod)
			return nil
		case pod.Workload == name:
			of = append(of, pod)
		}
	}
	if len(of) > 0 {
		// One that is enrolled tells more.
		best := max(0, slices.IndexFunc(of, func(p *model.Pod) bool { return p.Enrolled && !p.Terminating }))
		s.Workload, s.Number = name, len(of)
		s.take(of[best])
		return nil
	}
	s.Elsewhere = node.NodeOf(namespace, name)
	return nil
}

func (s *Source) take(pod *model.Pod) { s.Pod, s.Namespace, s.Name = pod, pod.Namespace, pod.Name }

// choose takes the pod's address of the family that it calls, if it has one.
func (s *Source) choose(to netip.Addr) {
	if s.Pod == nil || s.IP.IsValid() && (!to.IsValid() || s.IP.Is4() == to.Is4()) {
		return
	}
	for _, ip := range s.Pod.IPs {
		if !to.IsValid() || ip.Is4() == to.Is4() {
			s.IP = ip
			return
		}
	}
}

// objectName reads [namespace/]name or [namespace/]kind/name.
func objectName(text string, kinds []string, ns string) (namespace, name string, err error) {
	parts := strings.Split(text, "/")
	if len(parts) > 1 && slices.Contains(kinds, parts[len(parts)-2]) {
		parts = slices.Delete(parts, len(parts)-2, len(parts)-1)
	}
	if len(parts) == 1 {
		parts = []string{ns, parts[0]}
	}
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" {
		return "", "", fmt.Errorf("not understood")
	}
	return parts[0], parts[1], nil
}

// resolve finds the Service, or whatever else has the address.
func (d *Destination) resolve(node *model.Node, from *Source) error {
	host, port := splitPort(d.Asked)
	if ip, err := netip.ParseAddr(host); err == nil {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil || number == 0 {
			return fmt.Errorf("to %q: a port's number is needed after an address", d.Asked)
		}
		d.resolveAddress(node, netip.AddrPortFrom(ip.Unmap(), uint16(number)))
		return nil
	}
	namespace, name, err := objectName(host, []string{"service", "svc"}, from.namespace())
	if err != nil || strings.ContainsAny(host, ":[] ") {
		return fmt.Errorf("to %q: not understood: want SERVICE:PORT, NAMESPACE/SERVICE:PORT, SERVICE.NAMESPACE.svc:PORT or IP:PORT", d.Asked)
	}
	if !strings.Contains(host, "/") && strings.Contains(host, ".") {
		words := strings.Split(strings.TrimSuffix(host, "."), ".")
		if len(words) < 2 || len(words) > 2 && words[2] != "svc" || len(words) == 2 && !node.HasNamespace(words[1]) {
			d.kind = isNoHost
			return nil
		}
		name, namespace = words[0], words[1]
	}
	d.Namespace, d.Name = namespace, name
	return d.resolveService(node, from, port)
}

func (s *Source) namespace() string {
	if s.Namespace == "" {
		return "default"
	}
	return s.Namespace
}

// splitPort cuts off the port, if there is one.
func splitPort(text string) (host, port string) {
	if bracketed, rest, ok := strings.Cut(strings.TrimPrefix(text, "["), "]"); ok && strings.HasPrefix(text, "[") {
		return bracketed, strings.TrimPrefix(rest, ":")
	}
	i := strings.LastIndex(text, ":")
	if i < 0 || strings.Count(text, ":") > 1 {
		return text, ""
	}
	return text[:i], text[i+1:]
}

// resolveService finds the port of a Service by name.
func (d *Destination) resolveService(node *model.Node, from *Source, asked string) error {
	svc, ok := node.Service(d.Namespace, d.Name)
	d.PortName, d.Service = asked, svc
	if !ok {
		d.kind, d.Similar = isNoService, node.Similar(d.Namespace, d.Name)
		return nil
	}
	switch {
	case svc.External:
		d.kind = isExternal
		return nil
	case svc.Headless:
		d.kind = isHeadless
		return nil
	}
	port, err := choosePort(svc, asked)
	if err != nil {
		return fmt.Errorf("to %q: %w", d.Asked, err)
	}
	if port == nil {
		d.kind = isNoPort
		return nil
	}
	d.Port = port.Port
	if port.Protocol != "TCP" {
		d.kind, d.PortName = isNotTCP, port.Protocol
		return nil
	}
	d.Others = node.FrontendsOf(svc.Namespace, svc.Name, port.Port)
	best := -1
	for i, f := range d.Others {
		// Its own addresses, in their order, are what DNS gives; the pod needs one of the
		// same family.
		internal := slices.Contains(svc.Addresses, f.Address.Addr())
		if internal && (best < 0 || from.prefers(f.Address.Addr()) && !from.prefers(d.Others[best].Address.Addr())) {
			best = i
		}
	}
	if best < 0 {
		d.kind = isAddressless
		return nil
	}
	d.Frontend, d.Address = d.Others[best], d.Others[best].Address
	d.Others = slices.Delete(d.Others, best, best+1)
	return nil
}

// has says whether the caller has an address of the family of another.
func (s *Source) has(of netip.Addr) bool {
	return s.Pod != nil && slices.ContainsFunc(s.Pod.IPs, func(ip netip.Addr) bool { return ip.Is4() == of.Is4() })
}

// prefers says whether the caller would rather call an address of this family: that of
// the address that was asked about, or any that it has.
func (s *Source) prefers(of netip.Addr) bool {
	if s.IP.IsValid() {
		return s.IP.Is4() == of.Is4()
	}
	return s.has(of)
}

// choosePort finds a port by name or number; nil if there is none of it. Without either
// it is the only one there is. A TCP port comes before others of the same number.
func choosePort(svc model.Service, asked string) (*model.NamedPort, error) {
	var found *model.NamedPort
	for i := range svc.Ports {
		port := &svc.Ports[i]
		if (asked == "" || asked == port.Name || asked == strconv.Itoa(int(port.Port))) && (found == nil || found.Protocol != "TCP" && port.Protocol == "TCP") {
			found = port
		}
	}
	if asked == "" && len(svc.Ports) > 1 {
		return nil, fmt.Errorf("a port is needed, one of %s", portList(svc))
	}
	return found, nil
}

// portList names the ports of a Service.
func portList(svc model.Service) string {
	var names []string
	for _, p := range svc.Ports {
		name := strconv.Itoa(int(p.Port))
		if p.Name != "" {
			name += " (" + p.Name + ")"
		}
		if p.Protocol != "TCP" {
			name += " " + p.Protocol
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// resolveAddress finds out whose an address is.
func (d *Destination) resolveAddress(node *model.Node, at netip.AddrPort) {
	d.Address, d.Port = at, at.Port()
	if f, ok := node.Frontend(at); ok {
		d.Frontend, d.Namespace, d.Name = f, f.Port.Namespace, f.Port.Service
		d.Service, _ = node.Service(d.Namespace, d.Name)
		return
	}
	if svc, ok := node.ServiceAt(at.Addr()); ok {
		d.Namespace, d.Name, d.Service = svc.Namespace, svc.Name, svc
		d.kind, d.PortName = isNoPort, strconv.Itoa(int(at.Port()))
		for _, p := range svc.Ports {
			if p.Port == at.Port() && p.Protocol != "TCP" {
				d.kind, d.PortName = isNotTCP, p.Protocol
			}
		}
		return
	}
	d.Owner = node.OwnerOf(at.Addr())
	switch {
	case d.Owner.Pod != "":
		d.kind = isPod
	case d.Owner.Node != "":
		d.kind = isNode
	default:
		d.kind = isUnknown
	}
}
