#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One authority, one key for service accounts, and for each identity of the cluster
# a certificate in $RUN/pki and a kubeconfig in $RUN/kubeconfig.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

mkdir -p "$RUN/pki" "$RUN/kubeconfig"
cd "$RUN/pki"
umask 077
quiet() { "$@" 2>openssl.log || { cat openssl.log >&2; return 1; }; }
new_key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)

quiet openssl req -x509 "${new_key[@]}" -keyout ca.key -out ca.crt -days 30 \
  -subj /CN=nodevoy-cluster -addext keyUsage=critical,keyCertSign,cRLSign
quiet openssl ecparam -name prime256v1 -genkey -noout -out service-accounts.key

# certificate NAME SUBJECT [ALTERNATIVE-NAMES]
certificate() {
  quiet openssl req -new "${new_key[@]}" -keyout "$1.key" -out "$1.csr" -subj "$2"
  quiet openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out "$1.crt" \
    -extfile <(printf 'keyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n%s' "${3:+subjectAltName=$3}")
}

# kubeconfig NAME SERVER: everything embedded, so that it can be copied anywhere.
kubeconfig() {
  cat >"$RUN/kubeconfig/$1" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: nodevoy, cluster: {server: "$2", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
contexts: [{name: nodevoy, context: {cluster: nodevoy, user: $1}}]
current-context: nodevoy
YAML
}

inside=https://$API_SERVER:6443
certificate apiserver /CN=kube-apiserver "IP:$API_SERVER,IP:$API_SERVICE,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
certificate admin /O=system:masters/CN=admin
kubeconfig admin "https://127.0.0.1:$API_PORT"
for component in kube-controller-manager kube-scheduler kube-proxy; do
  certificate $component /CN=system:$component
  kubeconfig $component "$inside"
done
for node in $NODES; do
  certificate "$node" "/O=system:nodes/CN=system:node:$node" "DNS:$node,IP:$LAN4.$((10 + $(node_index "$node")))"
  kubeconfig "$node" "$inside"
done
