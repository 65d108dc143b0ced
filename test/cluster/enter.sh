#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command inside a node, as if logged in there: enter.sh NODE COMMAND...
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
node=$1
shift
exec nsenter -t "$(init_of "$node")" -m -n -p -u -i -r -w "$@"
