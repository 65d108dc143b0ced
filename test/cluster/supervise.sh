# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# For the scripts that are process 1 of a node or of the control plane.

# Starts a program whose log is $state/log/NAME: start NAME ARGS...
start() {
  "$@" >>"$state/log/$1" 2>&1 </dev/null &
  echo "started $1 as $!"
}

# Reaps whatever ends, for ever: a killed kubelet's orphans come here too.
reap() {
  while true; do
    wait -n || echo "a process ended with $?"
    # Nothing left to wait for would make this a busy loop.
    [ -n "$(jobs -r)" ] || sleep 1
  done
}
