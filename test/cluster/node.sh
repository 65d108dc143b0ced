#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Process 1 of a node's namespaces: containerd, kubelet, kube-proxy. node.sh NAME
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$(dirname "${BASH_SOURCE[0]}")/supervise.sh"
. "$(dirname "${BASH_SOURCE[0]}")/node-root.sh"
NODE=$1
INDEX=$(node_index "$NODE")
NODE_IP4=$LAN4.$((10 + INDEX)) NODE_IP6=$LAN6:$((10 + INDEX))
state=$RUN/$NODE
cd "$here"
hostname "$NODE"
make_root
pretend_sysctls

render "cni-$CNI.conflist" >/etc/cni/net.d/10-pods.conflist
render containerd.toml >/etc/containerd/config.toml
render kubelet.yaml >/etc/kubernetes/kubelet.yaml
render kube-proxy.yaml >/etc/kubernetes/kube-proxy.yaml

# The LAN is attached from outside, once this process's namespaces exist.
wait_for 60 "the LAN" ip -4 route get "$API_SERVER"
start containerd --config /etc/containerd/config.toml
wait_for 60 containerd ctr version
for image in "$IMAGES"/*.tar; do
  ctr -n k8s.io images import "$image"
done
wait_for 180 "the API server" curl -sfk -m 2 "https://$API_SERVER:6443/readyz"
start kubelet --config=/etc/kubernetes/kubelet.yaml --kubeconfig="$RUN/kubeconfig/$NODE" \
  --hostname-override="$NODE" --node-ip="$NODE_IP4,$NODE_IP6" --node-labels="topology.kubernetes.io/region=test,topology.kubernetes.io/zone=zone-${NODE##*-}"
start kube-proxy --config=/etc/kubernetes/kube-proxy.yaml
reap
