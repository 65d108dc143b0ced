# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Hosts of the LAN, the control plane's and the nodes': sourced, after env.sh and
# cgroup.sh, by what starts them.

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
    in_network "$other" ip route replace "$PODS4.$index.0/24" via "$LAN4.$((10 + index))"
    in_network "$other" ip route replace "$PODS6:$index::/64" via "$LAN6:$((10 + index))"
  done
}
