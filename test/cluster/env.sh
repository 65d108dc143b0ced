# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Names, places and addresses of the test cluster; sourced by its other scripts.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CLUSTER=${here%/test/cluster}/.cache/cluster
export BIN=$CLUSTER/bin IMAGES=$CLUSTER/images RUN=$CLUSTER/run
export PATH=$BIN:/usr/sbin:/sbin:$PATH

export NODES=${NODES:-node-a node-b}
export KUBE_PROXY_MODE=${KUBE_PROXY_MODE:-iptables} # or nftables
# How pods are joined to their node: by a `bridge`, or each by a veth of its own and
# a route, `ptp`. TPROXY, which kube-proxy's nftables mode asks for, loses packets on
# a bridge whose traffic passes iptables.
case $KUBE_PROXY_MODE in
  nftables) export CNI=${CNI:-ptp} ;;
  *) export CNI=${CNI:-bridge} ;;
esac
# The API server's port on the machine's loopback, the one thing outside the namespaces.
export API_PORT=${API_PORT:-16443}

# The control plane is host 1 of the LAN, node i is host 10+i and has pods' subnet i.
export LAN4=172.30.0 LAN6=fd00:30:
export PODS4=10.244 PODS6=fd00:244
export SERVICES=10.96.0.0/16,fd00:96::/112
export API_SERVICE=10.96.0.1 DNS_SERVICE=10.96.0.10
export API_SERVER=$LAN4.1
export CGROUP=${CGROUP:-nodevoy-cluster}

# The index of a node in NODES, from 1.
node_index() {
  local i=0 name
  for name in $NODES; do
    i=$((i + 1))
    [ "$name" != "$1" ] || { echo "$i"; return; }
  done
  echo "no such node: $1" >&2
  return 1
}

# The process that is 1 in the namespaces of a node, or of `control-plane`.
init_of() { pgrep -P "$(cat "$RUN/$1/holder")"; }

# Runs a command in a node's network namespace only, with the machine's files.
in_network() { nsenter -t "$(cat "$RUN/$1/holder")" -n "${@:2}"; }

# Polls a command five times a second for so many seconds; its output is lost.
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || { echo "gave up waiting for $what" >&2; return 1; }
    sleep 0.2
  done
}

# Fills @NAME@ in a file of config/ with the variable NAME, and prints it.
render() {
  local text name
  text=$(cat "$here/config/$1")
  for name in $(grep -oE '@[A-Z0-9_]+@' <<<"$text" | tr -d @ | sort -u); do
    text=${text//@$name@/${!name}}
  done
  printf '%s\n' "$text"
}
