// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// serviceProxyName labels a Service that kube-proxy leaves to another proxy.
const serviceProxyName = "service.kubernetes.io/service-proxy-name"

// claim is one Service's wish to be reached at one address.
type claim struct {
	address netip.AddrPort
	// external is set for the addresses that the cluster did not hand out
	// itself. They come second: nobody may take another Service's ClusterIP
	// by writing it into externalIPs.
	external bool
	service  *service
	port     int
	field    string
	bypass   string
}

// choice is which backends of its port the claim needs.
func (c *claim) choice() choice {
	policy := c.service.Spec.InternalTrafficPolicy
	local := !c.external && policy != nil && *policy == corev1.ServiceInternalTrafficPolicyLocal
	switch v6 := c.address.Addr().Is6(); {
	case v6 && local:
		return localV6
	case v6:
		return clusterV6
	case local:
		return localV4
	default:
		return clusterV4
	}
}

// service is a Service being worked on.
type service struct {
	*corev1.Service
	bypass string
	// backends are those of each of spec.ports.
	backends []portBackends
}

// frontends gives every address to one Service port and finds its backends.
func (b *builder) frontends() []Frontend {
	slicesOf := b.slicesByService()
	claims := make([]claim, 0, len(b.in.Services)+len(b.in.Services)/2)
	for _, svc := range b.in.Services {
		if svc == nil || !b.hasFrontends(svc) {
			continue
		}
		b.checkService(svc)
		s := &service{Service: svc, bypass: b.bypass(svc)}
		own := len(claims)
		claims = b.claims(claims, s)
		if s.bypass == "" {
			s.backends = b.backends(svc, slicesOf[serviceKey{svc.Namespace, svc.Name}], claims[own:])
		}
	}
	slices.SortFunc(claims, compareClaims)

	frontends := make([]Frontend, 0, len(claims))
	for i := range claims {
		c := &claims[i]
		if i > 0 && claims[i-1].address == c.address {
			b.reportConflict(c, firstClaim(claims, i))
			continue
		}
		frontends = append(frontends, b.frontend(c))
	}
	return frontends
}

// firstClaim is the winner among the claims of one address, of which claims[i]
// is one.
func firstClaim(claims []claim, i int) *claim {
	for i > 0 && claims[i-1].address == claims[i].address {
		i--
	}
	return &claims[i]
}

// compareClaims puts the winner of an address first: the Service whose
// ClusterIP it is, then the oldest, then the first by name.
func compareClaims(x, y claim) int {
	if c := x.address.Compare(y.address); c != 0 {
		return c
	}
	if x.external != y.external {
		if y.external {
			return -1
		}
		return 1
	}
	return cmp.Or(
		x.service.CreationTimestamp.Compare(y.service.CreationTimestamp.Time),
		cmp.Compare(x.service.Namespace, y.service.Namespace),
		cmp.Compare(x.service.Name, y.service.Name),
		cmp.Compare(x.port, y.port),
		cmp.Compare(x.field, y.field),
	)
}

// reportConflict tells the loser of an address. A Service that names one
// address twice, as external and as load-balancer IP, has lost nothing.
func (b *builder) reportConflict(loser, winner *claim) {
	if loser.service == winner.service && loser.port == winner.port {
		return
	}
	b.problems.add(kindService, &loser.service.ObjectMeta, loser.field,
		loser.address.String()+" already belongs to "+winner.service.Namespace+"/"+winner.service.Name+
			" port "+portName(&winner.service.Spec.Ports[winner.port])+"; ignored here")
}

// frontend is the winner of its address, with its class and backends.
func (b *builder) frontend(c *claim) Frontend {
	port := &c.service.Spec.Ports[c.port]
	f := Frontend{
		Address: c.address,
		Port: ServicePort{
			Namespace: c.service.Namespace, Service: c.service.Name, PortName: port.Name, Port: uint16(port.Port),
		},
		Bypass: cmp.Or(c.service.bypass, c.bypass),
	}
	f.Class, f.ClassReason = classify(port, b.opts.OpaquePorts)
	if f.Bypass != "" {
		return f
	}
	f.Backends = c.service.backends[c.port][c.choice()]
	return f
}

// hasFrontends says whether kube-proxy, too, would give the Service addresses.
func (b *builder) hasFrontends(svc *corev1.Service) bool {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return false
	}
	switch clusterIPs(svc)[0] {
	case corev1.ClusterIPNone:
		return false
	case "":
		b.problems.add(kindService, &svc.ObjectMeta, "spec.clusterIP", "is empty; the Service has no address")
		return false
	default:
		return true
	}
}

// clusterIPs are never none: the API server fills clusterIPs from clusterIP,
// files need not.
func clusterIPs(svc *corev1.Service) []string {
	if len(svc.Spec.ClusterIPs) > 0 {
		return svc.Spec.ClusterIPs
	}
	return []string{svc.Spec.ClusterIP}
}

// bypass is the reason why all of a Service is left to kube-proxy, if it is.
func (b *builder) bypass(svc *corev1.Service) string {
	label, _ := redirectLabel(svc.Labels)
	switch {
	case svc.Namespace == "default" && svc.Name == "kubernetes":
		return "the API server is never redirected"
	case b.excluded(svc.Namespace):
		return "namespace is excluded"
	case label == RedirectDisabled:
		return "label " + RedirectLabel + "=" + RedirectDisabled
	case svc.Labels[serviceProxyName] != "":
		return "label " + serviceProxyName + "=" + svc.Labels[serviceProxyName]
	case svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP:
		return "sessionAffinity ClientIP"
	default:
		return ""
	}
}

// checkService reports what is wrong with the Service itself.
func (b *builder) checkService(svc *corev1.Service) {
	if _, invalid := redirectLabel(svc.Labels); invalid {
		b.problems.add(kindService, &svc.ObjectMeta, labelField, invalidLabel(svc.Labels))
	}
	for i := range svc.Spec.Ports {
		port := &svc.Spec.Ports[i]
		if port.Name == "" && len(svc.Spec.Ports) > 1 {
			b.problems.add(kindService, &svc.ObjectMeta, indexed("spec.ports", i, ".name"),
				"is empty in a Service of several ports; it gets the endpoints of unnamed ports")
		}
		if !validPort(port.Port) {
			b.problems.add(kindService, &svc.ObjectMeta, indexed("spec.ports", i, ".port"),
				strconv.Itoa(int(port.Port))+" is not a port; ignored")
		}
	}
}

// claims appends the Service's claims: each of its addresses with each TCP port.
func (b *builder) claims(to []claim, s *service) []claim {
	add := func(c claim, address string) {
		ip, fault := parseAddress(address)
		if fault != "" {
			b.problems.add(kindService, &s.ObjectMeta, c.field, address+" "+fault+"; ignored")
			return
		}
		for i := range s.Spec.Ports {
			port := &s.Spec.Ports[i]
			if port.Protocol != "" && port.Protocol != corev1.ProtocolTCP || !validPort(port.Port) {
				continue
			}
			c.service, c.port, c.address = s, i, netip.AddrPortFrom(ip, uint16(port.Port))
			to = append(to, c)
		}
	}
	for i, address := range clusterIPs(s.Service) {
		field := "spec.clusterIP"
		if len(s.Spec.ClusterIPs) > 1 {
			field = indexed("spec.clusterIPs", i, "")
		}
		add(claim{field: field}, address)
	}
	for i, address := range s.Spec.ExternalIPs {
		add(claim{external: true, field: indexed("spec.externalIPs", i, "")}, address)
	}
	for i := range s.Status.LoadBalancer.Ingress {
		ingress := &s.Status.LoadBalancer.Ingress[i]
		if ingress.IP == "" || ingress.IPMode != nil && *ingress.IPMode != corev1.LoadBalancerIPModeVIP {
			continue
		}
		c := claim{external: true, field: indexed("status.loadBalancer.ingress", i, ".ip")}
		if restricted(s.Spec.LoadBalancerSourceRanges) {
			c.bypass = "loadBalancerSourceRanges"
		}
		add(c, ingress.IP)
	}
	return to
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

func validPort(port int32) bool { return port > 0 && port < 1<<16 }

func portName(port *corev1.ServicePort) string {
	if port.Name != "" {
		return port.Name
	}
	return strconv.Itoa(int(port.Port))
}
