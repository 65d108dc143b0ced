#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the agent's image with whichever builder is there: image.sh VERSION
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tag=${IMAGE:-ghcr.io/nodevoy/nodevoy}:$1

if docker info >/dev/null 2>&1; then
  exec docker build --build-arg "VERSION=$1" -t "$tag" .
fi
for builder in podman buildah; do
  if command -v $builder >/dev/null; then
    exec $builder build --build-arg "VERSION=$1" -t "$tag" .
  fi
done
echo "no docker daemon, podman or buildah here; on Debian: apt-get install buildah" >&2
exit 1
