#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs make targets one after another as test suites, goes on after a failure, and
# ends with one line for each: result, seconds, name. Fails when any suite failed.
# Interrupted, it ends the running suite with everything it started, then reports.
set -uo pipefail

running=
results=()
failed=0

report() {
  printf '\n%-6s %7s  %s\n' RESULT SECONDS SUITE
  printf '%s\n' "${results[@]}"
}

interrupted() {
  trap '' INT TERM HUP
  if [ -n "$running" ]; then
    results+=("$(printf '%-6s %7d  %s' cut $(($(date +%s) - start)) "$suite")")
    kill -TERM -- "-$running" 2>/dev/null
    for _ in $(seq 50); do
      kill -0 -- "-$running" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL -- "-$running" 2>/dev/null
  fi
  report
  echo "interrupted"
  exit 130
}
trap interrupted INT TERM HUP

for suite; do
  printf '\n=== %s\n' "$suite"
  start=$(date +%s)
  # A session of its own, so that one signal reaches the whole suite.
  setsid "${MAKE:-make}" --no-print-directory "$suite" </dev/null &
  running=$!
  if wait "$running"; then
    verdict=pass
  else
    verdict=FAIL
    failed=1
  fi
  running=
  results+=("$(printf '%-6s %7d  %s' "$verdict" $(($(date +%s) - start)) "$suite")")
done

report
[ "$failed" = 0 ] && echo "all suites passed"
exit "$failed"
