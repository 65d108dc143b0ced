// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
)

// batch is the number of objects written at a time; etcd takes 128 by default.
const batch = 100

// Fill makes a namespace "fill" with this many Services, and for each an
// EndpointSlice with this many ready endpoints, that no pod is behind.
//
// It writes them to etcd, as the API server would: the API server itself counts
// all cluster IPs for each Service it creates, and takes minutes for 10,000.
// Readers see what they would see otherwise.
func (s *Server) Fill(t testing.TB, services, endpoints int) {
	t.Helper()
	stored := []record{{"/registry/namespaces/fill", &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "fill"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	}}}
	for i := range services {
		stored = append(stored, fillRecords(i, endpoints)...)
	}
	for group := range slices.Chunk(stored, batch) {
		if err := s.store(group); err != nil {
			t.Fatalf("write objects to etcd: %v", err)
		}
	}
}

// fillRecords are the Service of this number and its EndpointSlice.
func fillRecords(number, endpoints int) []record {
	name := fillName(number)
	return []record{
		{"/registry/services/specs/fill/" + name, fillService(name, number)},
		{"/registry/endpointslices/fill/" + name, fillSlice(name, number*endpoints, endpoints)},
	}
}

func fillName(number int) string { return fmt.Sprintf("service-%05d", number) }

// record is an object and its key in etcd.
type record struct {
	key    string
	object runtime.Object
}

// store writes objects to etcd in one transaction, by its JSON gateway.
func (s *Server) store(records []record) error {
	type put struct {
		Key   []byte `json:"key"`
		Value []byte `json:"value"`
	}
	type operation struct {
		Put put `json:"requestPut"`
	}
	var transaction struct {
		Success []operation `json:"success"`
	}
	versions := schema.GroupVersions{corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion}
	encoder := scheme.Codecs.EncoderForVersion(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), versions)
	for _, r := range records {
		value, err := runtime.Encode(encoder, r.object)
		if err != nil {
			return fmt.Errorf("encode %s: %w", r.key, err)
		}
		transaction.Success = append(transaction.Success, operation{put{[]byte(r.key), value}})
	}
	body, err := json.Marshal(transaction)
	if err != nil {
		return err
	}
	response, err := http.Post(s.etcd+"/v3/kv/txn", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd answers %s", response.Status)
	}
	return nil
}

// fillMeta is the metadata of an object as the API server completes it.
func fillMeta(kind, name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "fill", Name: name, UID: types.UID(kind + "-" + name), Labels: labels, CreationTimestamp: metav1.Unix(1, 0)}
}

// fillService is the Service of this number.
func fillService(name string, number int) *corev1.Service {
	ip := address(netip.AddrFrom4([4]byte{10, 96, 16, 0}), number)
	return &corev1.Service{
		ObjectMeta: fillMeta("service", name, nil),
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
			IPFamilies:            []corev1.IPFamily{corev1.IPv4Protocol},
			IPFamilyPolicy:        new(corev1.IPFamilyPolicySingleStack),
			InternalTrafficPolicy: new(corev1.ServiceInternalTrafficPolicyCluster),
			SessionAffinity:       corev1.ServiceAffinityNone,
			Ports:                 []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, AppProtocol: new("http")}},
		},
	}
}

// fillSlice has so many endpoints, of pods with numbers from first on.
func fillSlice(name string, first, endpoints int) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  fillMeta("slice", name, map[string]string{discoveryv1.LabelServiceName: name}),
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{
			Name: new("http"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP),
		}},
	}
	for number := first; number < first+endpoints; number++ {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{address(netip.AddrFrom4([4]byte{10, 128, 0, 1}), number)},
			Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
			NodeName:   new(fmt.Sprintf("elsewhere-%d", number%500)),
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: "fill", Name: fmt.Sprintf("pod-%d", number)},
		})
	}
	return slice
}

// address is the nth address after the first.
func address(first netip.Addr, n int) string {
	b := first.As4()
	n += int(b[3]) + int(b[2])<<8 + int(b[1])<<16
	return netip.AddrFrom4([4]byte{b[0], byte(n >> 16), byte(n >> 8), byte(n)}).String()
}
