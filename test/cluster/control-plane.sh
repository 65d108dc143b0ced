#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Process 1 of the control plane's namespaces: etcd, API server, controllers, scheduler.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$(dirname "${BASH_SOURCE[0]}")/supervise.sh"
state=$RUN/control-plane
pki=$RUN/pki
cd "$state"
hostname control-plane

start etcd --data-dir="$state/etcd" --unsafe-no-fsync --log-level=warn
start kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
  --bind-address=0.0.0.0 --advertise-address="$API_SERVER" \
  --cert-dir="$state/certs" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
  --client-ca-file="$pki/ca.crt" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
  --kubelet-client-certificate="$pki/apiserver-kubelet.crt" --kubelet-client-key="$pki/apiserver-kubelet.key" \
  --kubelet-preferred-address-types=InternalIP \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file="$pki/service-accounts.key" --service-account-signing-key-file="$pki/service-accounts.key" \
  --service-cluster-ip-range="$SERVICES" --allow-privileged=true
wait_for 120 "the API server" curl -sfk -m 2 https://127.0.0.1:6443/readyz
# At its default rate the first ServiceAccount takes 10 s to appear.
start kube-controller-manager --kubeconfig="$RUN/kubeconfig/kube-controller-manager" \
  --leader-elect=false --bind-address=127.0.0.1 --kube-api-qps=500 --kube-api-burst=1000 \
  --use-service-account-credentials --service-account-private-key-file="$pki/service-accounts.key" \
  --root-ca-file="$pki/ca.crt" --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
  --allocate-node-cidrs=false
start kube-scheduler --kubeconfig="$RUN/kubeconfig/kube-scheduler" --leader-elect=false --bind-address=127.0.0.1
reap
