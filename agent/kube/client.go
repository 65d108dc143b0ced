// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// The kinds that are read.
const (
	kindNamespace     = "Namespace"
	kindNode          = "Node"
	kindPod           = "Pod"
	kindService       = "Service"
	kindEndpointSlice = "EndpointSlice"
)

// protobuf costs the API server and the agent a fraction of what JSON does.
const protobuf = "application/vnd.kubernetes.protobuf"

// newClient makes a client from a kubeconfig file, or from the service account
// of the pod when there is none. What comes of its requests is seen by reach.
func newClient(kubeconfig string, r *reach) (kubernetes.Interface, error) {
	cfg, err := restConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("configure Kubernetes client: %w", err)
	}
	cfg.Wrap(r.wrap)
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("make Kubernetes client: %w", err)
	}
	return client, nil
}

func restConfig(kubeconfig string) (*rest.Config, error) {
	var cfg *rest.Config
	var err error
	if kubeconfig == "" {
		cfg, err = rest.InClusterConfig()
	} else {
		cfg, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, err
	}
	cfg.ContentType = protobuf
	cfg.AcceptContentTypes = protobuf + ",application/json"
	cfg.UserAgent = "nodevoy"
	return cfg, nil
}

// newWatches makes an informer for each kind, as narrow as the API allows.
func newWatches(client kubernetes.Interface, nodeName string) []*watch {
	interned := newInterner()
	return []*watch{
		newWatch(kindNamespace, coreinformers.NewNamespaceInformer(client, 0, nil), interned),
		newWatch(kindNode, coreinformers.NewFilteredNodeInformer(client, 0, nil, func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", nodeName).String()
		}), interned),
		// Finished pods have nothing to redirect; a node may keep thousands.
		newWatch(kindPod, coreinformers.NewFilteredPodInformer(client, "", 0, nil, func(o *metav1.ListOptions) {
			o.FieldSelector = fields.AndSelectors(
				fields.OneTermEqualSelector("spec.nodeName", nodeName),
				fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
				fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
			).String()
		}), interned),
		newWatch(kindService, coreinformers.NewServiceInformer(client, "", 0, nil), interned),
		// A headless Service has no frontend, and one with a proxy of its own
		// is not ours: nobody would look at their endpoints.
		newWatch(kindEndpointSlice, discoveryinformers.NewFilteredEndpointSliceInformer(client, "", 0, nil,
			func(o *metav1.ListOptions) {
				o.LabelSelector = "!service.kubernetes.io/headless,!" + labelServiceProxyName +
					"," + discoveryv1.LabelServiceName
			}), interned),
	}
}

func newWatch(kind string, informer cache.SharedIndexInformer, interned *interner) *watch {
	// Fails only once the informer runs.
	_ = informer.SetTransform(func(object any) (any, error) {
		trim(object, interned)
		return object, nil
	})
	return &watch{kind: kind, informer: informer}
}
