#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target of the module for the given time each.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

grep -rlE '^func Fuzz' --include='*_test.go' --exclude-dir=.cache . | xargs -n1 dirname | sort -u |
  while read -r package; do
    sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$package"/*_test.go | while read -r target; do
      go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "$package" </dev/null
    done
  done
