#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Takes the cluster down: kills the holders of its namespaces, with which everything
# inside ends, then removes control groups and files. Does nothing when none is up.
set -uo pipefail
shopt -s nullglob
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$here/cgroup.sh"
[ -e "$RUN" ] || exit 0

for file in "$RUN"/*/holder; do
  holder=$(cat "$file")
  # The number may be another process's by now: it is ours if it names our files.
  if grep -qaF -e "$here/" -e "$BIN/" "/proc/$holder/cmdline" 2>/dev/null; then
    kill -KILL "$holder"
    wait_for 10 "process $holder to end" bash -c "! kill -0 $holder"
  fi
done
wait_for 20 "the last processes to end" bash -c '. "$1/cgroup.sh"; ! cgroup_members' _ "$here"
wait_for 20 "the control groups to go" cgroup_gone
# A mount goes with the last process of its namespace, a moment after it.
wait_for 20 "$RUN to be removed" rm -rf --one-file-system "$RUN"
