#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds one of the cluster's binaries from its pinned Go module: build.sh NAME OUT.
# The flags are the same for all of them, so that they share the build cache.
set -euo pipefail
name=$1 out=$(realpath -m "$2")
cd "$(dirname "${BASH_SOURCE[0]}")"

case $name in
  coredns) cd ../coredns && package=. ;;
  etcd) package=go.etcd.io/etcd/server/v3 ;;
  helm) package=helm.sh/helm/v4/cmd/helm ;;
  containerd | containerd-shim-runc-v2 | ctr) package=github.com/containerd/containerd/v2/cmd/$name ;;
  kube*) package=k8s.io/kubernetes/cmd/$name ;;
  *) echo "no such binary: $name" >&2; exit 2 ;;
esac

module() { go list -m -f '{{.Version}}' "$1"; }
ldflags="-s -w"
case $name in
  kube*) # Without these the API server calls itself v0.0.0, and helm charts refuse it.
    version=$(module k8s.io/kubernetes)
    IFS=. read -r major minor _ <<<"${version#v}"
    for set in gitVersion="$version" gitMajor="$major" gitMinor="$minor" gitTreeState=clean \
      gitCommit=0000000000000000000000000000000000000000 buildDate=1970-01-01T00:00:00Z; do
      ldflags+=" -X k8s.io/component-base/version.$set"
    done ;;
  containerd) ldflags+=" -X github.com/containerd/containerd/v2/version.Version=$(module github.com/containerd/containerd/v2)" ;;
  helm) ldflags+=" -X helm.sh/helm/v4/internal/version.version=$(module helm.sh/helm/v4)" ;;
esac

start=$(date +%s)
CGO_ENABLED=0 nice go build -trimpath -ldflags "$ldflags" -o "$out" "$package"
touch "$out"
printf 'built %-24s %4d s %5d MiB\n' "$name" $(($(date +%s) - start)) $(($(stat -c %s "$out") >> 20))
