// SPDX-License-Identifier: Apache-2.0

// Command nodevoy-probe is what kubelet runs for the probes of the agent and of
// Envoy. It exits with 0 if all is well, else with 1 and the reason on standard
// error. `nodevoy health` does the same, but takes 40 MiB of memory to start, and
// Envoy's image has no program to ask with.
package main

import (
	"context"
	"os"
	"time"

	"github.com/nodevoy/nodevoy/agent/healthcheck"
)

// timeout is below the timeoutSeconds of the chart's probes, so that kubelet's
// event has the reason.
const timeout = 4 * time.Second

func main() {
	if len(os.Args) != 3 || !healthcheck.Known(os.Args[1]) {
		fail("usage: nodevoy-probe live|ready|envoy RUN-DIR", 2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	err := healthcheck.Check(ctx, os.Args[2], os.Args[1])
	cancel()
	if err != nil {
		fail(err.Error(), 1)
	}
}

func fail(why string, code int) {
	_, _ = os.Stderr.WriteString("nodevoy-probe: " + why + "\n") // Standard error is the last resort.
	os.Exit(code)
}
