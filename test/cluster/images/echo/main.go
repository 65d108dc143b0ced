// SPDX-License-Identifier: Apache-2.0

// Command echo is the lab's server and client as a program of its own:
// see package echo for its arguments.
package main

import (
	"os"

	"github.com/nodevoy/nodevoy/test/lab/echo"
)

func main() {
	os.Exit(echo.Main(os.Args[1:]))
}
