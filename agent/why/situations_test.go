// SPDX-License-Identifier: Apache-2.0

package why_test

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/agent/why"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// situation is a node in which somebody asks, of which one thing is changed.
type situation struct {
	objects  model.Inputs
	options  model.Options
	redirect plan.Config
	seen     map[netip.AddrPort]model.Seen
	question why.Question
	// input changes what the agent knows besides, and what was seen.
	input func(*why.Input)
	pair  why.Pair
}

func now() time.Time { return time.Date(2026, time.November, 30, 12, 0, 0, 0, time.UTC) }

// calm is a situation in which all is well: shop/client calls shop/api:80, and all was
// looked at.
func calm() *situation {
	s := &situation{options: model.DefaultOptions(), redirect: plan.DefaultConfig(), question: why.Question{From: "shop/client", To: "api:80"}}
	s.redirect.Mode = plan.PodMode
	s.objects = model.Inputs{
		NodeName: "node-a",
		Node: &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "node-a", Labels: map[string]string{corev1.LabelTopologyZone: "zone-a"}},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "172.30.0.1"}}},
		},
		Namespaces: []*corev1.Namespace{
			{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{model.RedirectLabel: model.RedirectEnabled}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "other"}},
			{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}},
		},
		Pods: []*corev1.Pod{pod("shop", "client", "10.244.1.2", "fd00:10:244:1::2"), pod("other", "outsider", "10.244.1.3"), pod("shop", "old", "10.244.1.4")},
	}
	s.addService("shop", "api", "10.96.0.10", port("http", 80, "http"))
	s.addEndpoints("shop", "api", ready("10.244.1.5", "api-1", "node-a"), ready("10.244.2.5", "api-2", "node-b"), ready("10.244.2.6", "api-3", "node-b"))
	return s
}

func pod(namespace, name string, ips ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + name)},
		Spec:       corev1.PodSpec{NodeName: "node-a"}, Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	return p
}

func port(name string, number int32, appProtocol string) corev1.ServicePort {
	p := corev1.ServicePort{Name: name, Port: number}
	if appProtocol != "" {
		p.AppProtocol = &appProtocol
	}
	return p
}

// addService adds a Service and returns it to be changed.
func (s *situation) addService(namespace, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: ports}}
	s.objects.Services = append(s.objects.Services, svc)
	return svc
}

// service is a Service that is there.
func (s *situation) service(name string) *corev1.Service {
	for _, svc := range s.objects.Services {
		if svc.Name == name {
			return svc
		}
	}
	return nil
}

// addEndpoints gives all ports of a Service endpoints at port 8080.
func (s *situation) addEndpoints(namespace, name string, endpoints ...discoveryv1.Endpoint) {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		Endpoints:  endpoints,
	}
	for i := range s.service(name).Spec.Ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &s.service(name).Spec.Ports[i].Name, Port: new(int32(8080))})
	}
	s.objects.EndpointSlices = append(s.objects.EndpointSlices, slice)
}

func ready(ip, pod, node string) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses: []string{ip}, NodeName: &node, Zone: new("zone-" + node[len(node)-1:]),
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod},
	}
}

// in is the situation as the agent knows it, with the kernel and Envoy as they are to be.
func (s *situation) in() why.Input {
	node := model.Build(s.objects, s.options).Learning(s.seen)
	in := why.Input{
		Now: now(), Model: node, Plan: plan.Compile(node, s.redirect), Mode: s.redirect.Mode, Pods: map[string]why.PodState{},
		Agent: why.Agent{
			Node: "node-a", At: now().Add(-200 * time.Millisecond), Redirecting: true, Mode: "pod (iptables-nft)", Applied: now().Add(-4 * time.Second),
		},
		Short: func(*model.Frontend) string { return "" }, Refused: func(*model.Frontend) string { return "" },
		Live: &why.Live{Kernel: &why.Kernel{}, Proxy: &why.Proxy{Hosts: map[netip.AddrPort][]why.Host{}}},
	}
	for i := range node.Pods {
		in.Pods[node.Pods[i].UID] = why.PodState{Redirecting: true, Netns: "/run/netns/cni-" + node.Pods[i].Name}
	}
	var err error
	if s.pair, err = why.Resolve(node, s.question); err != nil {
		panic(err)
	}
	if s.pair.To.Frontend != nil && s.pair.From.Pod != nil {
		s.see(&in)
	}
	if s.input != nil {
		s.input(&in)
	}
	return in
}

// see fills in what a look at the kernel and Envoy shows if all is well.
func (s *situation) see(in *why.Input) {
	f, kernel := s.pair.To.Frontend, in.Live.Kernel
	digit := "4"
	if f.Address.Addr().Is6() {
		digit = "6"
	}
	kernel.Source = why.Entry{Set: "nodevoy-pods" + digit, Member: s.pair.From.IP.String(), There: true, Left: 27 * time.Second}
	kernel.Full = &why.Entry{Set: "nodevoy-full" + digit, Member: s.pair.From.IP.String()}
	for _, c := range model.Classes() {
		kernel.Frontend = append(kernel.Frontend, why.Entry{Set: "nodevoy-" + c.String() + digit, Member: f.Address.String(), There: c == f.Class})
	}
	trace, err := why.Trace(in.Plan, s.pair)
	if err != nil {
		panic(err)
	}
	for _, step := range trace.Steps {
		kernel.Chains = append(kernel.Chains, why.Chain{Table: step.Table, Name: step.Chain, Rules: []why.CountedRule{
			{Line: "-A " + step.Chain + " " + step.Spec, Packets: 7},
		}})
	}
	listener, cluster := f.Class.String()+"/shop/client/uid-client", "HTTP/1.1 "+f.Address.String()
	in.XDS = why.XDS{
		Connected: true, Listener: why.Resource{Name: listener, Asked: true, Sent: true, Acked: true},
		Route:     &why.Resource{Name: "http", Asked: true, Sent: true, Acked: true},
		Clusters:  []why.Resource{{Name: cluster, Asked: true, Sent: true, Acked: true}},
		Endpoints: []why.Resource{{Name: cluster, Asked: true, Sent: true, Acked: true}},
	}
	in.Live.Proxy.Listeners, in.Live.Proxy.Clusters = []string{listener}, []string{cluster}
	for i := range f.Backends {
		in.Live.Proxy.Hosts[f.Backends[i].Address] = []why.Host{{Cluster: cluster, Healthy: true, Weight: 1, Active: 1, Total: 12}}
	}
}
