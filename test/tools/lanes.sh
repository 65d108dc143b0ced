#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# For `go test -exec`: "lanes.sh LANES BINARY FLAGS..." runs each test of the test
# binary in a process of its own, LANES at a time. It is for suites that wait more than
# they compute, and whose processes make namespaces of their own, so they never meet.
set -euo pipefail

if [ "$1" = one ]; then
  test=$2
  shift 2
  start=$(date +%s)
  code=0
  said=$("$@" "-test.run=^$test\$" 2>&1) || code=1
  # Under a lock: what a test says isn't mixed with what others say.
  flock "$0" printf -- '--- %s, %d s\n%s\n' "$test" $(($(date +%s) - start)) "$said"
  exit "$code"
fi

lanes=$1
shift
"$1" -test.list . | grep -E '^(Test|Example|Fuzz)' |
  xargs -P "$lanes" -I TEST "$0" one TEST "$@"
