#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that is checked without running the code, of every module in the tree.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

unformatted=$(find . -name '*.go' -not -path './.cache/*' -print0 | xargs -0 gofmt -l)
if [ -n "$unformatted" ]; then
  printf 'not formatted by gofmt:\n%s\n' "$unformatted" >&2
  exit 1
fi
for script in $(find . -name '*.sh' -not -path './.cache/*') .ci/run; do
  bash -n "$script"
done
go vet ./...
go tool -modfile=test/tools/go.mod golangci-lint run
