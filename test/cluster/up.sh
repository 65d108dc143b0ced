#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Brings the cluster up: the control plane and each node in namespaces of their own,
# joined by a bridge that is in the control plane's. The machine's own network gets
# one listening port on loopback, for the API server. Interrupted or failed, it takes
# down what it had.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$here/cgroup.sh"
. "$here/hosts.sh"

if [ -e "$RUN" ]; then
  echo "the cluster is up, or what is left of it: make cluster-down" >&2
  exit 1
fi

undo() {
  local status=$?
  # What is there may be another's by now.
  [ $status != 0 ] && [ "$(cat "$RUN/up" 2>/dev/null)" = $$ ] || return 0
  echo "not up; the ends of the logs:" >&2
  find "$RUN" -path '*/log/*' -exec tail -n 5 {} + >&2
  "$here/down.sh" >&2
}
trap undo EXIT
trap 'exit 130' INT TERM HUP

say() { printf '%6d s  %s\n' $SECONDS "$*"; }

mkdir -p "$RUN"
echo $$ >"$RUN/up"
"$here/pki.sh"
hold control-plane "$here/control-plane.sh"
in_network control-plane ip link add lan type bridge
lan_address control-plane "$LAN4.1/24" "$LAN6:1/64" lan
for node in $NODES; do hold "$node" "$here/node.sh" "$node"; done
for node in $NODES; do attach "$node"; done
for node in $NODES; do route "$node"; done
mkdir -p "$RUN/gate/log"
setsid "$BIN/gate" -listen "127.0.0.1:$API_PORT" -netns "/proc/$(cat "$RUN/control-plane/holder")/ns/net" \
  -to 127.0.0.1:6443 >"$RUN/gate/log/gate" 2>&1 </dev/null &
echo $! >"$RUN/gate/holder"
disown
wait_for 5 "port $API_PORT of the machine" grep -q listening "$RUN/gate/log/gate"
say "network and certificates"

export KUBECONFIG=$RUN/kubeconfig/admin
wait_for 180 "the API server" kubectl get --raw /readyz
say "API server"
kubectl create -f <(render coredns.yaml) >/dev/null
for node in $NODES; do
  index=$(node_index "$node")
  cidrs="\"$PODS4.$index.0/24\",\"$PODS6:$index::/64\""
  wait_for 180 "$node to register" kubectl patch node "$node" -p "{\"spec\":{\"podCIDR\":${cidrs%%,*},\"podCIDRs\":[$cidrs]}}"
done
kubectl wait --for=condition=Ready node --all --timeout=180s >/dev/null
say "nodes"
wait_for 60 "the default ServiceAccount" kubectl -n default get serviceaccount default
kubectl -n kube-system rollout status deployment/coredns --timeout=120s >/dev/null
say "DNS"
cat <<TEXT
The cluster is up: kube-proxy in $KUBE_PROXY_MODE mode, pods by $CNI. To use it:
  export KUBECONFIG=$KUBECONFIG PATH=$BIN:\$PATH
To enter a node: test/cluster/enter.sh ${NODES%% *} iptables-save
TEXT
