#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Puts prometheus and promtool into directory $1, from Debian's package, which is not
# installed: it would add a service to the machine.
set -euo pipefail
out=$1

if ! command -v dpkg >/dev/null; then
  mkdir -p "$out"
  ln -sf "$(command -v prometheus)" "$(command -v promtool)" "$out/"
  exit 0
fi
mkdir -p "$(dirname "$out")"
tmp=$(mktemp -d "$(dirname "$out")/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
apt-get -qq -o Acquire::Retries=3 update
apt-get -qq -o Acquire::Retries=3 -o APT::Sandbox::User=root download prometheus
dpkg -x prometheus_*.deb .
rm -rf "$out"
mv usr/bin "$out"
