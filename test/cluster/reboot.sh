#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Pulls a node's plug and starts it again: reboot.sh NODE. Every process of it, its
# network and what it had in /run and /etc are gone; its disk, with the kubelet's and
# containerd's files, is not. Returns once its kubelet and kube-proxy have started.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$here/cgroup.sh"
. "$here/hosts.sh"
node=$1
node_index "$node" >/dev/null

holder=$(cat "$RUN/$node/holder")
kill -KILL "$holder"
wait_for 10 "$node to end" bash -c "! kill -0 $holder"
# Its cable goes with its network namespace, if not yet: the kernel ends those in its
# own time.
in_network control-plane ip link delete "$node" 2>/dev/null || true
wait_for 60 "$node's control groups to go" cgroup_gone "$node"
hold "$node" "$here/node.sh" "$node"
attach "$node"
for name in $NODES; do route "$name"; done
wait_for 60 "kube-proxy of $node" grep -q "started kube-proxy" "$RUN/$node/log/init"
