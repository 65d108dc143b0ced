// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// hostOptions are host mode's, on a node with Envoy at these addresses.
func hostOptions() model.Options {
	opts := model.DefaultOptions()
	opts.HostMode = true
	opts.ListenerAddresses = []netip.Addr{netip.MustParseAddr("169.254.64.15"), netip.MustParseAddr("fd6e::15")}
	opts.ExcludedEndpoints = []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16"), netip.MustParsePrefix("192.0.2.1/32")}
	return opts
}

// hostInputs are shop/web with these endpoints of both families, on a node that has
// addresses of its own.
func hostInputs(endpoints ...discoveryv1.Endpoint) model.Inputs {
	in := model.Inputs{
		NodeName: nodeName,
		Node: &corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "node-1.example.org"}, {Type: corev1.NodeInternalIP, Address: "10.9.9.9"}, {Type: corev1.NodeExternalIP, Address: "203.0.113.9"},
		}}},
		NodeNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.244.1.1/32"), netip.MustParsePrefix("198.51.100.0/28"), netip.MustParsePrefix("fd00::9/128")},
		Services: []*corev1.Service{service(func(s *corev1.Service) {
			s.Spec.ClusterIPs = []string{"10.96.0.1", "fd00:96::1"}
		})},
		EndpointSlices: []*discoveryv1.EndpointSlice{with(slice("web-1", endpoints...), func(s *discoveryv1.EndpointSlice) { s.AddressType = "" })},
	}
	return in
}

// TestEndpointsOffLimits is one endpoint beside good ones of both families: the
// frontend of its family is left to kube-proxy in host mode, with the reason, and
// nothing else changes; nor does anything in pod mode.
func TestEndpointsOffLimits(t *testing.T) {
	for ip, what := range map[string]string{
		"10.9.9.9":           "an address of this node",
		"203.0.113.9":        "an address of this node",
		"10.244.1.1":         "an address of this node",
		"198.51.100.15":      "an address of this node",
		"198.51.100.16":      "",
		"fd00::9":            "an address of this node",
		"::ffff:10.9.9.9":    "an address of this node",
		"fd6e::15":           "an address of Envoy's listeners",
		"fd6e::16":           "",
		"fd00:ec2::254":      "a metadata address of AWS",
		"fd00:ec2::23":       "a metadata address of AWS",
		"fd00:ec2:0:1::1":    "",
		"168.63.129.16":      "a metadata address of Azure",
		"fd20:ce::254":       "a metadata address of Google Cloud",
		"100.100.100.200":    "a metadata address of Alibaba Cloud",
		"fd00:100::100:200":  "a metadata address of Alibaba Cloud",
		"100.100.100.201":    "",
		"fd00:c1::a9fe:a9fe": "a metadata address of Oracle Cloud",
		"fd00:42::42":        "a metadata address of Scaleway",
		"fd00:a9fe:a9fe::1":  "a metadata address of Akamai",
		"10.8.255.1":         "in the excluded network 10.8.0.0/16",
		"192.0.2.1":          "in the excluded network 192.0.2.1/32",
		"10.7.0.1":           "",
	} {
		t.Run(ip, func(t *testing.T) {
			in := hostInputs(endpoint("10.0.0.1"), endpoint(ip), endpoint("fd01::1"))
			addr := netip.MustParseAddr(ip).Unmap()
			want := []string{"10.96.0.1:80 shop/web/http", "[fd00:96::1]:80 shop/web/http"}
			if diff := cmp.Diff(want, frontends(model.Build(in, model.DefaultOptions()))); diff != "" {
				t.Errorf("in pod mode (-want +got):\n%s", diff)
			}
			if what != "" {
				family := 0
				if addr.Is6() {
					family = 1
				}
				want[family] += " bypass: backend " + addr.String() + " is " + what + ", which Envoy must not call in host mode"
			}
			node := model.Build(in, hostOptions())
			if diff := cmp.Diff(want, frontends(node)); diff != "" {
				t.Errorf("in host mode (-want +got):\n%s", diff)
			}
			for _, f := range node.Frontends {
				if f.Bypass != "" && f.Backends != nil || f.Bypass == "" && len(f.Backends) == 0 {
					t.Errorf("%s, bypass %q, has backends %v", f.Address, f.Bypass, f.Backends)
				}
			}
		})
	}
}

// TestEndpointsThatNobodyUses: no endpoint is used in either mode at an address that
// means the caller itself, or a neighbour on the link; others are.
func TestEndpointsThatNobodyUses(t *testing.T) {
	for _, ip := range []string{
		"127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "169.254.170.2", "169.254.64.15", "fe80::a9fe:a9fe", "febf::1",
		"0.0.0.0", "::", "224.0.0.1", "239.1.1.1", "ff02::1", "ff0e::1",
	} {
		for mode, opts := range map[string]model.Options{"host": hostOptions(), "pod": model.DefaultOptions()} {
			node := model.Build(hostInputs(endpoint("10.0.0.1"), endpoint(ip), endpoint("fd01::1")), opts)
			for _, f := range node.Frontends {
				if len(f.Backends) != 1 || f.Bypass != "" {
					t.Errorf("%s, %s mode: %s has backends %v, bypass %q", ip, mode, f.Address, f.Backends, f.Bypass)
				}
			}
			if len(node.Problems) != 1 {
				t.Errorf("%s, %s mode: problems %v", ip, mode, node.Problems)
			}
		}
	}
}

// TestEndpointOffLimitsThatIsNotUsed: only what this node would call counts.
func TestEndpointOffLimitsThatIsNotUsed(t *testing.T) {
	for name, bad := range map[string]discoveryv1.Endpoint{
		"not ready": endpoint("10.9.9.9", unready), "terminating": endpoint("10.9.9.9", leaving),
	} {
		node := model.Build(hostInputs(endpoint("10.0.0.1"), bad), hostOptions())
		if f := node.Frontends[0]; f.Bypass != "" || len(f.Backends) != 1 {
			t.Errorf("%s: bypass %q, backends %v", name, f.Bypass, f.Backends)
		}
	}
	node := model.Build(hostInputs(endpoint("10.0.0.1", unready), endpoint("10.9.9.9", leaving)), hostOptions())
	if f := node.Frontends[0]; f.Bypass == "" {
		t.Errorf("the last that serves: backends %v", f.Backends)
	}
}

// TestNeighboursService: endpoints that one namespace writes are those of its own
// Services, whatever they are labelled with.
func TestNeighboursService(t *testing.T) {
	in := hostInputs(endpoint("10.0.0.1"))
	foreign := slice("web-2", endpoint("10.9.9.9"))
	foreign.Namespace = "evil"
	in.EndpointSlices = append(in.EndpointSlices, foreign)
	in.Services = append(in.Services, service(func(s *corev1.Service) {
		s.Namespace, s.Spec.ClusterIP, s.Spec.ExternalIPs = "evil", "10.96.0.66", []string{"10.96.0.1"}
	}))
	want := []string{
		"10.96.0.1:80 shop/web/http",
		"10.96.0.66:80 evil/web/http bypass: backend 10.9.9.9 is an address of this node, which Envoy must not call in host mode",
		"[fd00:96::1]:80 shop/web/http",
	}
	if diff := cmp.Diff(want, frontends(model.Build(in, hostOptions()))); diff != "" {
		t.Error(diff)
	}
}

// TestServiceBehindAService: kube-proxy would send what Envoy sends to a Service on
// to that Service's backends, which are the node itself.
func TestServiceBehindAService(t *testing.T) {
	inner := func(s *corev1.Service) {
		s.Name, s.Spec.ClusterIP, s.Spec.ExternalIPs = "inner", "10.96.0.66", []string{"198.18.0.1"}
	}
	innerSlice := slice("inner-1", endpoint("10.9.9.9"))
	innerSlice.Labels[discoveryv1.LabelServiceName] = "inner"
	for ip, port := range map[string]int32{"10.96.0.66": 80, "198.18.0.1": 80} {
		outerSlice := slice("web-1", endpoint("10.0.0.1"), endpoint(ip))
		outerSlice.Ports[0].Port = &port
		in := hostInputs()
		in.EndpointSlices = []*discoveryv1.EndpointSlice{outerSlice, innerSlice}
		in.Services = []*corev1.Service{service(), service(inner)}
		builder := model.NewBuilder(hostOptions())
		want := "backend " + ip + ":80 is an address of a Service, which Envoy must not call in host mode"
		for range 2 {
			if f := builder.Build(in).Frontends[0]; f.Bypass != want || f.Backends != nil {
				t.Errorf("bypass %q, backends %v; want %q", f.Bypass, f.Backends, want)
			}
		}
		if f := model.Build(in, model.DefaultOptions()).Frontends[0]; f.Bypass != "" {
			t.Errorf("in pod mode: %s", f.Bypass)
		}
		in.Services = in.Services[:1]
		if f := builder.Build(in).Frontends[0]; f.Bypass != "" || len(f.Backends) != 2 {
			t.Errorf("without the other Service: %q, backends %v", f.Bypass, f.Backends)
		}
	}
}

// TestBuilderFollowsTheNode: an address that the node gets or loses decides about
// Services that did not change; without such a change they are taken over.
func TestBuilderFollowsTheNode(t *testing.T) {
	in := hostInputs(endpoint("10.0.0.1"))
	builder := model.NewBuilder(hostOptions())
	first := builder.Build(in).Frontends[0]
	if again := builder.Build(in).Frontends[0]; again != first || first.Bypass != "" {
		t.Errorf("not taken over, or bypass %q", first.Bypass)
	}
	networks := in.NodeNetworks
	in.NodeNetworks = append([]netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}, networks...)
	if f := builder.Build(in).Frontends[0]; f.Bypass == "" {
		t.Error("an address that the node got is called")
	}
	in.NodeNetworks = networks
	if f := builder.Build(in).Frontends[0]; f.Bypass != "" {
		t.Errorf("after the node lost the address: %s", f.Bypass)
	}
	in.Node = in.Node.DeepCopy()
	in.Node.Status.Addresses[1].Address = "10.0.0.1"
	if f := builder.Build(in).Frontends[0]; f.Bypass == "" {
		t.Error("an address that the node's object got is called")
	}
}
