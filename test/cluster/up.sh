#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Brings the cluster up: the control plane and each node in namespaces of their own,
# joined by a bridge that is in the control plane's. The machine's own network gets
# one listening port on loopback, for the API server. Interrupted or failed, it takes
# down what it had.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$here/cgroup.sh"

if [ -e "$RUN" ]; then
  echo "the cluster is up, or what is left of it: make cluster-down" >&2
  exit 1
fi

undo() {
  local status=$?
  [ $status != 0 ] || return 0
  echo "not up; the ends of the logs:" >&2
  find "$RUN" -path '*/log/*' -exec tail -n 5 {} + >&2
  "$here/down.sh" >&2
}
trap undo EXIT
trap 'exit 130' INT TERM HUP

say() { printf '%6d s  %s\n' $SECONDS "$*"; }

# hold NAME SCRIPT ARGS...: runs a script as process 1 of new namespaces, which end
# when the holder, unshare, is killed.
hold() {
  local name=$1
  shift
  mkdir -p "$RUN/$name/log"
  cgroup_make "$name/system"
  (
    cgroup_enter "$name/system"
    exec setsid unshare --mount --net --pid --uts --ipc --propagation private --fork --kill-child --mount-proc \
      bash "$@" >"$RUN/$name/log/init" 2>&1 </dev/null
  ) &
  echo $! >"$RUN/$name/holder"
  disown
  wait_for 10 "the namespaces of $name" init_of "$name"
}

# Inside a namespace: one command to set up its end of the LAN.
lan_address() {
  in_network "$1" bash -euc '
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
      net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
    # As a node with a bridge for its pods has it; the module may be missing.
    sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 2>/dev/null || true
    ip link set lo up
    ip address add "$1" dev "$3"
    ip address add "$2" dev "$3" nodad
    ip link set "$3" up' lan "$2" "$3" "$4"
}

attach() {
  local node=$1 index
  index=$(node_index "$node")
  in_network control-plane ip link add "$node" type veth peer name eth0 netns "$(cat "$RUN/$node/holder")"
  in_network control-plane ip link set "$node" master lan up
  lan_address "$node" "$LAN4.$((10 + index))/24" "$LAN6:$((10 + index))/64" eth0
  in_network "$node" ip route add default via "$LAN4.1"
  in_network "$node" ip route add default via "$LAN6:1"
}

# route NODE: the way to its pods, for everybody else on the LAN.
route() {
  local node=$1 other index
  index=$(node_index "$node")
  for other in $NODES control-plane; do
    [ "$other" != "$node" ] || continue
    in_network "$other" ip route add "$PODS4.$index.0/24" via "$LAN4.$((10 + index))"
    in_network "$other" ip route add "$PODS6:$index::/64" via "$LAN6:$((10 + index))"
  done
}

mkdir -p "$RUN"
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
