// SPDX-License-Identifier: Apache-2.0

// Package redirecttest is a whole fake kernel for tests of redirection, with the
// nodes and pods that those tests have in common.
package redirecttest
