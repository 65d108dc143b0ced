# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The cluster's control groups, below /$CGROUP in every hierarchy the machine has:
# several in version 1, one in version 2.

cgroup_roots() {
  local root
  if [ -e /sys/fs/cgroup/cgroup.procs ]; then
    echo /sys/fs/cgroup
    return
  fi
  for root in /sys/fs/cgroup/*; do
    [ ! -e "$root/cgroup.procs" ] || echo "$root"
  done
}

# cgroup_make PATH: makes /$CGROUP/PATH, each step ready to have members below it.
cgroup_make() {
  local root dir step controller
  for root in $(cgroup_roots); do
    dir=$root
    for step in $CGROUP ${1//\// }; do
      if [ -e "$dir/cgroup.controllers" ]; then
        for controller in $(cat "$dir/cgroup.controllers"); do
          echo "+$controller" >"$dir/cgroup.subtree_control"
        done
      fi
      mkdir -p "$dir/$step"
      # A new cpuset is empty and takes no process.
      if [ -e "$dir/$step/cpuset.cpus" ] && [ -e "$dir/cpuset.mems" ]; then
        cat "$dir/cpuset.cpus" >"$dir/$step/cpuset.cpus"
        cat "$dir/cpuset.mems" >"$dir/$step/cpuset.mems"
      fi
      dir=$dir/$step
    done
  done
}

# cgroup_enter PATH: moves the calling shell into /$CGROUP/PATH.
cgroup_enter() {
  local root
  for root in $(cgroup_roots); do
    echo "$BASHPID" >"$root/$CGROUP/$1/cgroup.procs"
  done
}

cgroup_members() {
  local root
  for root in $(cgroup_roots); do
    [ ! -d "$root/$CGROUP" ] || find "$root/$CGROUP" -name cgroup.procs -exec cat {} + 2>/dev/null
  done | grep -vx 0
}

# cgroup_gone [PATH]: removes what is below /$CGROUP, or below PATH of it, and says
# whether it is gone.
cgroup_gone() {
  local root dir left=0
  for root in $(cgroup_roots); do
    dir=$root/$CGROUP${1:+/$1}
    [ -d "$dir" ] || continue
    find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null
    [ ! -d "$dir" ] || left=1
  done
  return $left
}
