// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/nodevoy/nodevoy/agent/model"
)

// assignment is the backends of a frontend, grouped by zone.
func assignment(in endpointsInputs) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: in.name.String()}
	backends := slices.Clone(in.backends)
	slices.SortStableFunc(backends, func(a, b model.Backend) int { return cmp.Compare(a.Zone, b.Zone) })
	var last *endpointv3.LocalityLbEndpoints
	for i, b := range backends {
		if i == 0 || backends[i-1].Zone != b.Zone {
			last = locality(b.Zone, in.clusterVersion)
			out.Endpoints = append(out.Endpoints, last)
		}
		last.LbEndpoints = append(last.LbEndpoints, endpoint(b))
	}
	if last == nil {
		// One empty locality, to have a place for the version.
		out.Endpoints = append(out.Endpoints, locality("", in.clusterVersion))
	}
	return out
}

func locality(zone, clusterVersion string) *endpointv3.LocalityLbEndpoints {
	return &endpointv3.LocalityLbEndpoints{
		Locality: &corev3.Locality{Zone: utf8(zone)},
		Metadata: metadata(versionField, clusterVersion),
	}
}

func endpoint(b model.Backend) *endpointv3.LbEndpoint {
	pod := ""
	if b.Pod != "" {
		pod = b.Namespace + "/" + b.Pod
	}
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(b.Address)}},
		Metadata:       metadata(podField, pod, nodeField, b.Node, zoneField, b.Zone),
	}
}

// metadata holds pairs of field and value under nodevoy's key, without those
// whose value is empty.
func metadata(pairs ...string) *corev3.Metadata {
	fields := map[string]*structpb.Value{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fields[pairs[i]] = structpb.NewStringValue(utf8(pairs[i+1]))
		}
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{metadataKey: {Fields: fields}}}
}
