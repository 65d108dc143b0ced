#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command in network, mount, process and IPC namespaces of its own, with a
# private /run, so that whatever it starts, mounts, names or adds to the kernel's
# tables ends with it, however it ends. Without root it uses a user namespace.
set -euo pipefail

flags=(--net --mount --pid --ipc --fork --kill-child --mount-proc)
[ "$(id -u)" = 0 ] || flags+=(--map-root-user)
exec unshare "${flags[@]}" bash -c '
  set -euo pipefail
  mount -t tmpfs -o mode=755 tmpfs /run
  mount -t sysfs sysfs /sys 2>/dev/null || true
  mkdir -p /run/netns /run/lock
  ip link set lo up
  # A shell stays as process 1: it reaps, and its end takes all the others along.
  rc=0
  "$@" || rc=$?
  exit "$rc"' sandbox "$@"
