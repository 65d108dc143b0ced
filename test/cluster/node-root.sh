# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Gives a node a root of its own; sourced by node.sh, in the node's namespaces.
#
# The root is a copy-on-write view of the machine's, written to a tmpfs, so nothing
# a node or a pod writes to /etc, /run or /opt reaches the machine. What is big or
# must outlive a reboot of the node is bound from $state.

make_root() {
  local root=$state/root new=$state/root/new
  mkdir -p "$root" "$state"/{kubelet,containerd,pod-logs}
  mount -t tmpfs -o mode=755 tmpfs "$root"
  mkdir "$root"/{upper,work,new}
  mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" "$new"
  mount -t proc proc "$new/proc"
  mount -t sysfs sysfs "$new/sys" # /sys/class/net of this network namespace
  mount --rbind /sys/fs/cgroup "$new/sys/fs/cgroup"
  mount --rbind /dev "$new/dev"
  mount -t tmpfs -o mode=755 tmpfs "$new/run"
  mount -t tmpfs -o mode=1777 tmpfs "$new/tmp"
  mkdir -p "$new/run/lock" "$new/run/netns" "$new$CLUSTER" "$new$here" "$new/var/lib/kubelet" "$new/var/lib/containerd" \
    "$new/var/log/pods" "$new/var/log/containers" "$new/etc/cni/net.d" "$new/etc/containerd" "$new/etc/kubernetes"
  mount --bind "$CLUSTER" "$new$CLUSTER"
  mount --bind "$here" "$new$here"
  mount --bind "$state/kubelet" "$new/var/lib/kubelet"
  mount --bind "$state/containerd" "$new/var/lib/containerd"
  mount --bind "$state/pod-logs" "$new/var/log/pods"
  rm -f "$new"/etc/cni/net.d/* "$new/etc/machine-id"
  echo "$NODE" >"$new/etc/hostname"
  md5sum <<<"$NODE" | cut -c1-32 >"$new/etc/machine-id"
  printf '127.0.0.1 localhost\n::1 localhost\n%s %s\n' "$NODE_IP4" "$NODE" >"$new/etc/hosts"
  : >"$new/etc/resolv.conf"
  mkdir "$new/.old"
  cd "$new"
  pivot_root . .old
  cd /
  umount -l /.old
  rmdir /.old
  mount --make-rshared / # for mountPropagation in pods
}

# The kubelet insists on some settings of the whole machine. It is shown files with
# the values it wants, and the machine keeps its own.
pretend_sysctl() {
  local file=/run/sysctl/${1//\//.}
  mkdir -p /run/sysctl
  echo "$2" >"$file"
  mount --bind "$file" "/proc/sys/$1"
}

pretend_sysctls() {
  pretend_sysctl vm/overcommit_memory 1
  pretend_sysctl vm/panic_on_oom 0
  pretend_sysctl kernel/panic 10
  pretend_sysctl kernel/panic_on_oops 1
  pretend_sysctl kernel/keys/root_maxkeys 1000000
  pretend_sysctl kernel/keys/root_maxbytes 25000000
}
