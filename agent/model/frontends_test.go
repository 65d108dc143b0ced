// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/nodevoy/nodevoy/agent/model"
)

// frontends writes each frontend as "address namespace/service/port bypass".
func frontends(node *model.Node) []string {
	var list []string
	for _, f := range node.Frontends {
		text := f.Address.String() + " " + f.Port.String()
		if f.Bypass != "" {
			text += " bypass: " + f.Bypass
		}
		list = append(list, text)
	}
	return list
}

// TestFrontends is one Service, changed in one way, and where it is reached.
func TestFrontends(t *testing.T) {
	name := func(ns, name string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Namespace, s.Name = ns, name }
	}
	ingress := func(ingress ...corev1.LoadBalancerIngress) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Status.LoadBalancer.Ingress = ingress }
	}
	ranges := func(ranges ...string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = ranges }
	}
	clusterIPs := func(ips ...string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = ips[0], ips }
	}
	external := func(ips ...string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.ExternalIPs = ips }
	}
	ports := func(ports ...corev1.ServicePort) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.Ports = ports }
	}
	label := func(key, value string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Labels = map[string]string{key: value} }
	}
	const plain = "10.96.0.1:80 shop/web/http"
	for _, test := range []struct {
		name     string
		changes  []func(*corev1.Service)
		want     []string
		problems []string
	}{
		{name: "cluster IP", want: []string{plain}},
		{name: "clusterIPs of one", changes: with1(clusterIPs("10.96.0.1")), want: []string{plain}},
		{
			name: "dual stack", changes: with1(clusterIPs("fd00::1", "10.96.0.1")),
			want: []string{plain, "[fd00::1]:80 shop/web/http"},
		},
		{name: "headless", changes: with1(clusterIPs("None"))},
		{name: "headless with external IP", changes: with1(clusterIPs("None"), external("192.0.2.1"))},
		{
			name:    "external name",
			changes: with1(func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }),
		},
		{
			name:     "no cluster IP",
			changes:  with1(clusterIPs("")),
			problems: []string{"Service shop/web spec.clusterIP: is empty; the Service has no address"},
		},
		{
			name:    "external IPs",
			changes: with1(external("192.0.2.1", "2001:db8::1")),
			want:    []string{plain, "192.0.2.1:80 shop/web/http", "[2001:db8::1]:80 shop/web/http"},
		},
		{
			name: "load balancer",
			changes: with1(ingress(
				corev1.LoadBalancerIngress{IP: "192.0.2.1"},
				corev1.LoadBalancerIngress{IP: "192.0.2.2", IPMode: new(corev1.LoadBalancerIPModeVIP)},
				corev1.LoadBalancerIngress{IP: "192.0.2.3", IPMode: new(corev1.LoadBalancerIPModeProxy)},
				corev1.LoadBalancerIngress{Hostname: "lb.example.org"},
			)),
			want: []string{plain, "192.0.2.1:80 shop/web/http", "192.0.2.2:80 shop/web/http"},
		},
		{
			name:    "load balancer for some only",
			changes: with1(ingress(corev1.LoadBalancerIngress{IP: "192.0.2.1"}), ranges("198.51.100.0/24"), external("192.0.2.9")),
			want: []string{
				plain, "192.0.2.1:80 shop/web/http bypass: loadBalancerSourceRanges", "192.0.2.9:80 shop/web/http",
			},
		},
		{
			name:    "load balancer for all",
			changes: with1(ingress(corev1.LoadBalancerIngress{IP: "192.0.2.1"}), ranges(" 0.0.0.0/0", "::/0")),
			want:    []string{plain, "192.0.2.1:80 shop/web/http"},
		},
		{
			name:    "source ranges that nobody can read",
			changes: with1(ingress(corev1.LoadBalancerIngress{IP: "192.0.2.1"}), ranges("all")),
			want:    []string{plain, "192.0.2.1:80 shop/web/http bypass: loadBalancerSourceRanges"},
		},
		{
			name:    "one address twice",
			changes: with1(external("192.0.2.1", "192.0.2.1"), ingress(corev1.LoadBalancerIngress{IP: "192.0.2.1"})),
			want:    []string{plain, "192.0.2.1:80 shop/web/http"},
		},
		{
			name: "other protocols",
			changes: with1(ports(
				corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
				corev1.ServicePort{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP},
				corev1.ServicePort{Name: "sctp", Port: 132, Protocol: corev1.ProtocolSCTP},
			)),
			want: []string{"10.96.0.1:53 shop/web/dns-tcp"},
		},
		{name: "no ports", changes: with1(ports())},
		{
			name:    "one port without a name",
			changes: with1(ports(corev1.ServicePort{Port: 80})),
			want:    []string{"10.96.0.1:80 shop/web/80"},
		},
		{
			name:     "port without a name among others",
			changes:  with1(ports(corev1.ServicePort{Name: "http", Port: 80}, corev1.ServicePort{Port: 81})),
			want:     []string{plain, "10.96.0.1:81 shop/web/81"},
			problems: []string{"Service shop/web spec.ports[1].name: is empty in a Service of several ports; it gets the endpoints of unnamed ports"},
		},
		{
			name: "port numbers out of range",
			changes: with1(ports(
				corev1.ServicePort{Name: "a", Port: 0}, corev1.ServicePort{Name: "b", Port: -1},
				corev1.ServicePort{Name: "c", Port: 65536}, corev1.ServicePort{Name: "d", Port: 65535},
			)),
			want: []string{"10.96.0.1:65535 shop/web/d"},
			problems: []string{
				"Service shop/web spec.ports[0].port: 0 is not a port; ignored",
				"Service shop/web spec.ports[1].port: -1 is not a port; ignored",
				"Service shop/web spec.ports[2].port: 65536 is not a port; ignored",
			},
		},
		{
			name:     "one number twice",
			changes:  with1(ports(corev1.ServicePort{Name: "a", Port: 80}, corev1.ServicePort{Name: "b", Port: 80})),
			want:     []string{"10.96.0.1:80 shop/web/a"},
			problems: []string{"Service shop/web spec.clusterIP: 10.96.0.1:80 already belongs to shop/web port a; ignored here"},
		},
		{
			name: "addresses nobody can have",
			changes: with1(
				clusterIPs("127.0.0.1"), external("169.254.1.1", "fe80::1", "::", "224.0.0.1", "x", "fd00::1%eth0", "192.0.2.1"),
				ingress(corev1.LoadBalancerIngress{IP: "::1"}),
			),
			want: []string{"192.0.2.1:80 shop/web/http"},
			problems: []string{
				"Service shop/web spec.clusterIP: 127.0.0.1 is a loopback address; ignored",
				"Service shop/web spec.externalIPs[0]: 169.254.1.1 is a link-local address; ignored",
				"Service shop/web spec.externalIPs[1]: fe80::1 is a link-local address; ignored",
				"Service shop/web spec.externalIPs[2]: :: is unspecified; ignored",
				"Service shop/web spec.externalIPs[3]: 224.0.0.1 is a multicast address; ignored",
				"Service shop/web spec.externalIPs[4]: x is not an IP address; ignored",
				"Service shop/web spec.externalIPs[5]: fd00::1%eth0 has a zone; ignored",
				"Service shop/web status.loadBalancer.ingress[0].ip: ::1 is a loopback address; ignored",
			},
		},
		{name: "v4 in v6", changes: with1(clusterIPs("::ffff:10.96.0.1")), want: []string{plain}},
		{
			name: "the API server", changes: with1(name("default", "kubernetes")),
			want: []string{"10.96.0.1:80 default/kubernetes/http bypass: the API server is never redirected"},
		},
		{
			name: "excluded namespace", changes: with1(name("kube-system", "web")),
			want: []string{"10.96.0.1:80 kube-system/web/http bypass: namespace is excluded"},
		},
		{
			name: "opted out", changes: with1(label("nodevoy.io/redirect", "disabled")),
			want: []string{plain + " bypass: label nodevoy.io/redirect=disabled"},
		},
		{name: "opted in", changes: with1(label("nodevoy.io/redirect", "enabled")), want: []string{plain}},
		{
			name: "label invalid", changes: with1(label("nodevoy.io/redirect", "no")), want: []string{plain},
			problems: []string{"Service shop/web metadata.labels[nodevoy.io/redirect]: value no is neither enabled nor disabled; treated as not set"},
		},
		{
			name: "another service proxy", changes: with1(label("service.kubernetes.io/service-proxy-name", "other")),
			want: []string{plain + " bypass: label service.kubernetes.io/service-proxy-name=other"},
		},
		{
			name:    "session affinity",
			changes: with1(func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }),
			want:    []string{plain + " bypass: sessionAffinity ClientIP"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			svc := service(test.changes...)
			node := build(model.Inputs{
				Services:       []*corev1.Service{nil, svc},
				EndpointSlices: []*discoveryv1.EndpointSlice{nil, slice("web-1", endpoint("10.0.0.1"))},
			})
			if diff := cmp.Diff(test.want, frontends(node), noEmpty...); diff != "" {
				t.Errorf("frontends (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.problems, texts(node.Problems), noEmpty...); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			for _, f := range node.Frontends {
				if f.Bypass != "" && (f.Backends != nil || f.Redirected()) {
					t.Errorf("%s is bypassed, yet has backends %v", f.Address, f.Backends)
				}
			}
		})
	}
}

// with1 is a list of changes.
func with1(changes ...func(*corev1.Service)) []func(*corev1.Service) { return changes }

// TestFrontendConflicts is two Services that claim one address.
func TestFrontendConflicts(t *testing.T) {
	named := func(name string, minute int, changes ...func(*corev1.Service)) *corev1.Service {
		return service(append(changes, func(s *corev1.Service) {
			s.Name, s.CreationTimestamp = name, created(minute)
		})...)
	}
	elsewhere := func(s *corev1.Service) { s.Spec.ClusterIP = "10.96.0.2" }
	external := func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"192.0.2.1"} }
	thief := func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"10.96.0.1"} }
	for _, test := range []struct {
		name     string
		services []*corev1.Service
		want     []string
		problems []string
	}{
		{
			name: "the older one has it", services: []*corev1.Service{named("a", 2), named("b", 1)},
			want:     []string{"10.96.0.1:80 shop/b/http"},
			problems: []string{"Service shop/a spec.clusterIP: 10.96.0.1:80 already belongs to shop/b port http; ignored here"},
		},
		{
			name: "of one age, the first by name", services: []*corev1.Service{named("b", 1), named("a", 1)},
			want:     []string{"10.96.0.1:80 shop/a/http"},
			problems: []string{"Service shop/b spec.clusterIP: 10.96.0.1:80 already belongs to shop/a port http; ignored here"},
		},
		{
			name: "three, told about the winner", services: []*corev1.Service{named("c", 3), named("b", 2), named("a", 1)},
			want: []string{"10.96.0.1:80 shop/a/http"},
			problems: []string{
				"Service shop/b spec.clusterIP: 10.96.0.1:80 already belongs to shop/a port http; ignored here",
				"Service shop/c spec.clusterIP: 10.96.0.1:80 already belongs to shop/a port http; ignored here",
			},
		},
		{
			name:     "an external IP is nobody's ClusterIP, however old",
			services: []*corev1.Service{named("new", 9), named("old", 1, elsewhere, thief)},
			want:     []string{"10.96.0.1:80 shop/new/http", "10.96.0.2:80 shop/old/http"},
			problems: []string{"Service shop/old spec.externalIPs[0]: 10.96.0.1:80 already belongs to shop/new port http; ignored here"},
		},
		{
			name:     "the loser keeps its other addresses",
			services: []*corev1.Service{named("a", 1, external), named("b", 2, elsewhere, external)},
			want:     []string{"10.96.0.1:80 shop/a/http", "10.96.0.2:80 shop/b/http", "192.0.2.1:80 shop/a/http"},
			problems: []string{"Service shop/b spec.externalIPs[0]: 192.0.2.1:80 already belongs to shop/a port http; ignored here"},
		},
		{
			name: "one IP, two ports, is no conflict",
			services: []*corev1.Service{named("a", 1, external), named("b", 2, elsewhere, external, func(s *corev1.Service) {
				s.Spec.Ports[0].Port = 81
			})},
			want: []string{
				"10.96.0.1:80 shop/a/http", "10.96.0.2:81 shop/b/http",
				"192.0.2.1:80 shop/a/http", "192.0.2.1:81 shop/b/http",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			node := build(model.Inputs{Services: test.services})
			if diff := cmp.Diff(test.want, frontends(node), noEmpty...); diff != "" {
				t.Errorf("frontends (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.problems, texts(node.Problems), noEmpty...); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestClass(t *testing.T) {
	for _, test := range []struct {
		port   corev1.ServicePort
		want   model.Class
		reason string
	}{
		{corev1.ServicePort{Port: 80}, model.ClassDetect, "no declared protocol, HTTP likely: port 80"},
		{corev1.ServicePort{Port: 7000, Name: "web"}, model.ClassDetect, "no declared protocol, HTTP likely: name web"},
		{corev1.ServicePort{Port: 80, Name: "webhttp"}, model.ClassDetect, "no declared protocol, HTTP likely: port 80"},
		{corev1.ServicePort{Port: 7000, Name: "admin-http"}, model.ClassDetect, "no declared protocol, HTTP likely: name admin-http"},

		{corev1.ServicePort{Port: 80, Name: "http"}, model.ClassDetect, "port name http, HTTP not seen yet"},
		{corev1.ServicePort{Port: 80, Name: "http-web"}, model.ClassDetect, "port name http-web, HTTP not seen yet"},
		{corev1.ServicePort{Port: 80, Name: "http2"}, model.ClassDetect, "port name http2, HTTP not seen yet"},
		{corev1.ServicePort{Port: 80, Name: "h2c"}, model.ClassDetect, "port name h2c, HTTP not seen yet"},
		{corev1.ServicePort{Port: 80, Name: "grpc"}, model.ClassDetect, "port name grpc, HTTP not seen yet"},
		{corev1.ServicePort{Port: 80, Name: "grpc-web"}, model.ClassDetect, "port name grpc-web, HTTP not seen yet"},
		{corev1.ServicePort{Port: 80, Name: "ws-chat"}, model.ClassDetect, "port name ws-chat, HTTP not seen yet"},
		{corev1.ServicePort{Port: 80, Name: "https"}, model.ClassTCP, "port name https"},
		{corev1.ServicePort{Port: 80, Name: "tls-web"}, model.ClassTCP, "port name tls-web"},
		{corev1.ServicePort{Port: 80, Name: "tcp"}, model.ClassTCP, "port name tcp"},
		{corev1.ServicePort{Port: 80, Name: "mysql"}, model.ClassTCP, "port name mysql"},
		{corev1.ServicePort{Port: 80, Name: "mongo"}, model.ClassTCP, "port name mongo"},
		{corev1.ServicePort{Port: 80, Name: "redis-main"}, model.ClassTCP, "port name redis-main"},
		{corev1.ServicePort{Port: 80, Name: "postgres"}, model.ClassTCP, "port name postgres"},
		{corev1.ServicePort{Port: 80, Name: "kafka"}, model.ClassTCP, "port name kafka"},
		{corev1.ServicePort{Port: 80, Name: "amqp"}, model.ClassTCP, "port name amqp"},

		{corev1.ServicePort{Port: 80, AppProtocol: new("")}, model.ClassDetect, "no declared protocol, HTTP likely: port 80"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("http")}, model.ClassHTTP, "appProtocol http"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("HTTP")}, model.ClassHTTP, "appProtocol HTTP"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("http2")}, model.ClassHTTP, "appProtocol http2"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("grpc")}, model.ClassHTTP, "appProtocol grpc"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("grpc-web")}, model.ClassHTTP, "appProtocol grpc-web"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("kubernetes.io/h2c")}, model.ClassHTTP, "appProtocol kubernetes.io/h2c"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("kubernetes.io/ws")}, model.ClassHTTP, "appProtocol kubernetes.io/ws"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("ws")}, model.ClassHTTP, "appProtocol ws"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("wss")}, model.ClassTCP, "appProtocol wss"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("kubernetes.io/wss")}, model.ClassTCP, "appProtocol kubernetes.io/wss"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("https")}, model.ClassTCP, "appProtocol https"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("tls")}, model.ClassTCP, "appProtocol tls"},
		{corev1.ServicePort{Port: 80, AppProtocol: new("example.org/own")}, model.ClassTCP, "appProtocol example.org/own"},

		{corev1.ServicePort{Port: 3306}, model.ClassTCP, "opaque port 3306"},
		{corev1.ServicePort{Port: 11211, Name: "cache"}, model.ClassTCP, "opaque port 11211"},

		// Declared before named, named before numbered.
		{corev1.ServicePort{Port: 3306, Name: "tcp", AppProtocol: new("http")}, model.ClassHTTP, "appProtocol http"},
		{corev1.ServicePort{Port: 3306, Name: "http"}, model.ClassDetect, "port name http, HTTP not seen yet"},
	} {
		svc := service(func(s *corev1.Service) { s.Spec.Ports = []corev1.ServicePort{test.port} })
		f := build(model.Inputs{Services: []*corev1.Service{svc}}).Frontends[0]
		if f.Class != test.want || f.ClassReason != test.reason {
			t.Errorf("port %d, name %q, appProtocol %v: got %s (%s), want %s (%s)", test.port.Port, test.port.Name,
				test.port.AppProtocol, f.Class, f.ClassReason, test.want, test.reason)
		}
	}
}

func TestOpaquePortsAreAnOption(t *testing.T) {
	svc := service(func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{{Name: "a", Port: 3306}, {Name: "b", Port: 7000}}
	})
	in := model.Inputs{NodeName: nodeName, Services: []*corev1.Service{svc}}
	var got []model.Class
	for _, f := range model.Build(in, model.Options{OpaquePorts: []uint16{7000}, Undeclared: model.UndeclaredDetect}).Frontends {
		got = append(got, f.Class)
	}
	if diff := cmp.Diff([]model.Class{model.ClassDetect, model.ClassTCP}, got); diff != "" {
		t.Errorf("classes of 3306 and 7000 (-want +got):\n%s", diff)
	}
}
