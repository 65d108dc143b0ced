// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// ServiceProxyNameLabel is on a Service that kube-proxy, and so nodevoy, leaves to
// another proxy.
const ServiceProxyNameLabel = "service.kubernetes.io/service-proxy-name"

// serviceReader computes what a Service contributes to a Node, from the Service,
// its EndpointSlices and the reader's settings alone.
type serviceReader struct {
	nodeName, zone string
	opts           Options
	offLimits      *offLimits
	// scratch is reused from one Service to the next.
	scratch endpointScratch
}

// serviceView is what one Service contributes to a Node.
type serviceView struct {
	*corev1.Service
	// group collects its EndpointSlices, and slices are those of the view, sorted
	// by name.
	group  *sliceGroup
	slices []*discoveryv1.EndpointSlice
	// claims are the addresses it asks for, each with the frontend it is to be.
	claims   []claim
	problems problems
	// build is the number of the last build that had this view.
	build uint64
}

// read computes the view of a Service; slices are those of its group, sorted by
// name.
func (r *serviceReader) read(svc *corev1.Service, group *sliceGroup, slices []*discoveryv1.EndpointSlice) *serviceView {
	v := &serviceView{Service: svc, group: group, slices: slices}
	if !v.hasFrontends() {
		return v
	}
	v.check()
	v.claim()
	bypass, own := r.bypass(svc), v.ownClasses()
	var backends []portBackends
	if bypass == "" {
		backends = r.backends(v)
	}
	for i := range v.claims {
		c := &v.claims[i]
		port := &svc.Spec.Ports[c.port]
		c.frontend.Port = ServicePort{
			Namespace: svc.Namespace, Service: svc.Name, PortName: port.Name, Port: uint16(port.Port),
		}
		c.frontend.classify(port, own, &r.opts)
		c.frontend.Bypass = cmp.Or(bypass, c.frontend.Bypass)
		if c.frontend.Bypass != "" {
			continue
		}
		usable := backends[c.port][c.scope()]
		if c.frontend.Bypass = r.offLimits.why(usable); c.frontend.Bypass == "" {
			c.frontend.Backends = usable
		}
	}
	return v
}

// hasFrontends says whether kube-proxy, too, would give the Service addresses.
func (v *serviceView) hasFrontends() bool {
	if v.Spec.Type == corev1.ServiceTypeExternalName {
		return false
	}
	switch clusterIPs(v.Service)[0] {
	case corev1.ClusterIPNone:
		return false
	case "":
		v.problems.add(kindService, &v.ObjectMeta, "spec.clusterIP", "is empty; the Service has no address")
		return false
	default:
		return true
	}
}

// clusterIPs has one element at least: the API server fills clusterIPs from clusterIP,
// files need not.
func clusterIPs(svc *corev1.Service) []string {
	if len(svc.Spec.ClusterIPs) > 0 {
		return svc.Spec.ClusterIPs
	}
	return []string{svc.Spec.ClusterIP}
}

// bypass is the reason why all of a Service is left to kube-proxy, if it is.
func (r *serviceReader) bypass(svc *corev1.Service) string {
	switch {
	case svc.Namespace == "default" && svc.Name == "kubernetes":
		return "the API server is never redirected"
	case r.opts.excluded(svc.Namespace):
		return "namespace is excluded"
	case redirectLabel(svc.Labels) == RedirectDisabled:
		return "label " + RedirectLabel + "=" + RedirectDisabled
	case svc.Labels[ServiceProxyNameLabel] != "":
		return "label " + ServiceProxyNameLabel + "=" + svc.Labels[ServiceProxyNameLabel]
	case svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP:
		return "sessionAffinity ClientIP"
	default:
		return ""
	}
}

// check reports what is wrong with the Service itself.
func (v *serviceView) check() {
	v.problems.checkLabel(kindService, &v.ObjectMeta)
	for i := range v.Spec.Ports {
		port := &v.Spec.Ports[i]
		if port.Name == "" && len(v.Spec.Ports) > 1 {
			v.problems.add(kindService, &v.ObjectMeta, indexed("spec.ports", i, ".name"),
				"is empty in a Service of several ports; it gets the endpoints of unnamed ports")
		}
		if !validPort(port.Port) {
			v.problems.add(kindService, &v.ObjectMeta, indexed("spec.ports", i, ".port"),
				strconv.Itoa(int(port.Port))+" is not a port; ignored")
		}
		if !validPortName(port.Name) {
			v.problems.add(kindService, &v.ObjectMeta, indexed("spec.ports", i, ".name"), "is no name of a port; the port is ignored")
		}
	}
}

// claim fills in the claims: each of the Service's addresses with each TCP port.
func (v *serviceView) claim() {
	add := func(c claim, address string) {
		ip, fault := parseAddress(address)
		if fault != "" {
			v.problems.add(kindService, &v.ObjectMeta, c.field, address+" "+fault+"; ignored")
			return
		}
		for i := range v.Spec.Ports {
			port := &v.Spec.Ports[i]
			if !IsTCP(port.Protocol) || !validPort(port.Port) || !validPortName(port.Name) {
				continue
			}
			c.service, c.port, c.frontend.Address = v, i, netip.AddrPortFrom(ip, uint16(port.Port))
			v.claims = append(v.claims, c)
		}
	}
	for i, address := range clusterIPs(v.Service) {
		field := "spec.clusterIP"
		if len(v.Spec.ClusterIPs) > 1 {
			field = indexed("spec.clusterIPs", i, "")
		}
		add(claim{field: field}, address)
	}
	for i, address := range v.Spec.ExternalIPs {
		add(claim{external: true, field: indexed("spec.externalIPs", i, "")}, address)
	}
	for i := range v.Status.LoadBalancer.Ingress {
		ingress := &v.Status.LoadBalancer.Ingress[i]
		if ingress.IP == "" || ingress.IPMode != nil && *ingress.IPMode != corev1.LoadBalancerIPModeVIP {
			continue
		}
		c := claim{external: true, field: indexed("status.loadBalancer.ingress", i, ".ip")}
		if restricted(v.Spec.LoadBalancerSourceRanges) {
			c.frontend.Bypass = "loadBalancerSourceRanges"
		}
		add(c, ingress.IP)
	}
}

// restricted says whether the ranges keep anybody out. kube-proxy, which knows
// the client's address, enforces them; behind Envoy nobody would.
func restricted(sourceRanges []string) bool {
	for _, text := range sourceRanges {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil || prefix.Bits() != 0 {
			return true
		}
	}
	return false
}

// IsTCP says whether a port's protocol is TCP, which it is if nothing is said.
func IsTCP(p corev1.Protocol) bool { return p == "" || p == corev1.ProtocolTCP }

func validPort(port int32) bool { return port > 0 && port < 1<<16 }

func portName(port *corev1.ServicePort) string {
	if port.Name != "" {
		return port.Name
	}
	return strconv.Itoa(int(port.Port))
}
