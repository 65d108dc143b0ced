# SPDX-License-Identifier: Apache-2.0
# Building and running the two-node test cluster; included by the Makefile.

CLUSTER := .cache/cluster
CLUSTER_PACKAGES := runc containernetworking-plugins curl
APISERVER_BINARIES := $(addprefix $(CLUSTER)/bin/,etcd kube-apiserver)
CLUSTER_BINARIES := $(APISERVER_BINARIES) $(addprefix $(CLUSTER)/bin/,kube-controller-manager kube-scheduler \
	kubelet kube-proxy kubectl containerd containerd-shim-runc-v2 ctr helm coredns)

.PHONY: cluster-build cluster-images cluster-up cluster-down test-cluster

$(CLUSTER)/bin/coredns: test/cluster/coredns/go.mod test/cluster/coredns/main.go
$(CLUSTER)/bin/%: test/cluster/tools/go.mod test/cluster/tools/build.sh
	@test/cluster/tools/build.sh $* $@

cluster-build: $(CLUSTER_BINARIES)
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(CLUSTER)/bin/ \
	  ./test/cluster/gate ./test/cluster/images/pause ./test/cluster/images/echo

cluster-images: deps envoy build cluster-build ## assemble the cluster's container images, without a registry
	@mkdir -p $(CLUSTER)/images
	@go run ./test/cluster/images -bin $(CLUSTER)/bin -nodevoy bin/nodevoy -envoy $(ENVOY) -out $(CLUSTER)/images \
	  -version $$(sed -n 's/^appVersion: //p' charts/nodevoy/Chart.yaml)

cluster-up: cluster-images ## start a two-node Kubernetes on this machine (KUBE_PROXY_MODE=iptables|nftables)
	@test/tools/apt.sh $(CLUSTER_PACKAGES)
	@test/cluster/up.sh

cluster-down: ## stop it and remove what it left
	@test/cluster/down.sh

test-cluster: race-deps cluster-images $(PROMETHEUS)/promtool ## end-to-end tests on the two-node cluster
	@test/tools/apt.sh $(CLUSTER_PACKAGES)
	@trap test/cluster/down.sh EXIT; trap 'exit 130' INT TERM HUP; test/cluster/up.sh; \
	  PATH="$(CURDIR)/$(CLUSTER)/bin:$$PATH" KUBECONFIG=$(CURDIR)/$(CLUSTER)/run/kubeconfig/admin $(GO_TEST) ./test/cluster
	@# Not by go test, which doesn't pass on the signal that make was ended with.
	@go test -race -c -o $(CLUSTER)/e2e.test ./test/cluster/e2e
	@cd test/cluster/e2e && exec $(CURDIR)/$(CLUSTER)/e2e.test -test.timeout=60m -test.v
