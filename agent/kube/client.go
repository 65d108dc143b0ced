// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// protobuf costs the API server and the agent a fraction of what JSON does.
// Kinds defined by a CustomResourceDefinition are answered in JSON all the same.
const protobuf = "application/vnd.kubernetes.protobuf"

// restConfig reads a kubeconfig file, or the service account of the pod when
// the path is empty.
func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}

// clients makes the client of each group and version. They share connections.
type clients struct {
	config rest.Config
	http   *http.Client
}

// newClients configures the clients. The outcome of every request is told to
// the reachability.
func newClients(cfg *rest.Config, scheme *runtime.Scheme, r *reachability) (*clients, error) {
	c := &clients{config: *rest.CopyConfig(cfg)}
	c.config.ContentType = protobuf
	c.config.AcceptContentTypes = protobuf + ",application/json"
	c.config.UserAgent = "nodevoy"
	c.config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.config.Wrap(r.wrap)
	client, err := rest.HTTPClientFor(&c.config)
	if err != nil {
		return nil, fmt.Errorf("make HTTP client: %w", err)
	}
	c.http = client
	return c, nil
}

// of is the client of one group and version.
func (c *clients) of(gv schema.GroupVersion) (rest.Interface, error) {
	cfg := c.config
	cfg.GroupVersion = &gv
	cfg.APIPath = "/apis"
	if gv.Group == "" {
		cfg.APIPath = "/api"
	}
	return rest.RESTClientForConfigAndClient(&cfg, c.http)
}
