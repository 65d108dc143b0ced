// SPDX-License-Identifier: Apache-2.0

package model

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// offLimits are the addresses that Envoy must not call in host mode. It would do
// so from the node's own address, past the rules that keep pods from them, and
// whoever may write an EndpointSlice could have it do so. Loopback, link-local,
// multicast and unspecified addresses are not among them: no endpoint is used at
// one, in either mode (parseAddress).
type offLimits struct {
	// hosts says of single addresses what they are, and networks of all others.
	hosts    map[netip.Addr]string
	networks []namedNetwork
}

// namedNetwork is a network and what its addresses are.
type namedNetwork struct {
	prefix netip.Prefix
	what   string
}

// newOffLimits is nil, which forbids nothing, outside host mode.
func newOffLimits(in Inputs, opts Options) *offLimits {
	if !opts.HostMode {
		return nil
	}
	o := &offLimits{hosts: map[netip.Addr]string{}}
	for _, ip := range opts.ListenerAddresses {
		o.add(netip.PrefixFrom(ip, ip.BitLen()), "an address of Envoy's listeners")
	}
	for _, n := range metadataServices() {
		o.add(n.prefix, n.what)
	}
	for _, ip := range nodeAddresses(in.Node) {
		o.add(netip.PrefixFrom(ip, ip.BitLen()), ofThisNode)
	}
	for _, local := range in.NodeNetworks {
		o.add(local, ofThisNode)
	}
	for _, excluded := range opts.ExcludedEndpoints {
		o.add(excluded, "in the excluded network "+excluded.String())
	}
	return o
}

const ofThisNode = "an address of this node"

// add takes up a network, unless it is a single address that is there already.
func (o *offLimits) add(prefix netip.Prefix, what string) {
	if !prefix.IsSingleIP() {
		o.networks = append(o.networks, namedNetwork{prefix, what})
	} else if _, known := o.hosts[prefix.Addr()]; !known {
		o.hosts[prefix.Addr()] = what
	}
}

// same says whether both forbid the same addresses, in the same words.
func (o *offLimits) same(other *offLimits) bool {
	if o == nil || other == nil {
		return o == other
	}
	return maps.Equal(o.hosts, other.hosts) && slices.Equal(o.networks, other.networks)
}

// why names the first backend that is off limits and says what it is; empty when
// none is.
func (o *offLimits) why(backends []Backend) string {
	if o == nil {
		return ""
	}
	for i := range backends {
		ip := backends[i].Address.Addr()
		if what := o.what(ip); what != "" {
			return "backend " + ip.String() + " is " + what + ", which Envoy must not call in host mode"
		}
	}
	return ""
}

// behindMemo finds frontends that have another for a backend. Those of the last
// build it does not judge again, unless frontends came or went.
type behindMemo struct {
	// given and judged are the last build's, by index; taken are their addresses.
	given, judged []*Frontend
	taken         map[netip.AddrPort]struct{}
}

// bypassing are the frontends, of which those that have another for a backend are
// bypassed. kube-proxy would give Envoy's connection to that one's backends, which
// may be off limits. A pod's own connection it translates only once.
func (m *behindMemo) bypassing(frontends []*Frontend) []*Frontend {
	sameAddress := func(x, y *Frontend) bool { return x == y || x.Address == y.Address }
	last := *m
	if m.taken == nil || !slices.EqualFunc(frontends, m.given, sameAddress) {
		last = behindMemo{taken: make(map[netip.AddrPort]struct{}, len(frontends))}
		for _, f := range frontends {
			last.taken[f.Address] = struct{}{}
		}
	}
	judged := make([]*Frontend, len(frontends))
	for i, f := range frontends {
		if last.given != nil && last.given[i] == f {
			judged[i] = last.judged[i]
		} else {
			judged[i] = last.judge(f)
		}
	}
	*m = behindMemo{given: frontends, judged: judged, taken: last.taken}
	return slices.Clone(judged)
}

// judge is the frontend, bypassed if a backend is another's address.
func (m *behindMemo) judge(f *Frontend) *Frontend {
	for i := range f.Backends {
		address := f.Backends[i].Address
		if _, is := m.taken[address]; is {
			bypassed := *f
			bypassed.Bypass = "backend " + address.String() + " is an address of a Service, which Envoy must not call in host mode"
			bypassed.Backends = nil
			return &bypassed
		}
	}
	return f
}

func (o *offLimits) what(ip netip.Addr) string {
	if what := o.hosts[ip]; what != "" {
		return what
	}
	for _, n := range o.networks {
		if n.prefix.Contains(ip) {
			return n.what
		}
	}
	return ""
}

// nodeAddresses are those that a Node object, which may be nil, says it has.
func nodeAddresses(node *corev1.Node) []netip.Addr {
	if node == nil {
		return nil
	}
	var ips []netip.Addr
	for _, address := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(address.Address); err == nil {
			ips = append(ips, ip.Unmap())
		}
	}
	return ips
}

// metadataServices are where clouds tell a machine about itself and give it its
// credentials, apart from the link-local addresses that most use.
func metadataServices() []namedNetwork {
	at := func(prefix, cloud string) namedNetwork {
		return namedNetwork{netip.MustParsePrefix(prefix), "a metadata address of " + cloud}
	}
	return []namedNetwork{
		// Metadata, DNS and time: https://docs.aws.amazon.com/whitepapers/latest/ipv6-on-aws/supporting-amazon-vpc-services.html
		// Credentials of pods: https://docs.aws.amazon.com/eks/latest/userguide/pod-id-agent-setup.html
		at("fd00:ec2::/64", "AWS"),
		// https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
		at("168.63.129.16/32", "Azure"),
		// https://cloud.google.com/compute/docs/metadata/querying-metadata
		at("fd20:ce::254/128", "Google Cloud"),
		// https://docs.cloud-init.io/en/latest/reference/datasources/aliyun.html
		// and, for IPv6, the URLs of cloud-init's DataSourceAliYun.py.
		at("100.100.100.200/32", "Alibaba Cloud"),
		at("fd00:100::100:200/128", "Alibaba Cloud"),
		// https://github.com/oracle/oci-python-sdk: auth/signers/instance_principals_security_token_signer.py
		at("fd00:c1::a9fe:a9fe/128", "Oracle Cloud"),
		// https://docs.cloud-init.io/en/latest/reference/datasources/scaleway.html
		at("fd00:42::42/128", "Scaleway"),
		// https://docs.cloud-init.io/en/latest/reference/datasources/akamai.html
		at("fd00:a9fe:a9fe::1/128", "Akamai"),
	}
}
