// SPDX-License-Identifier: Apache-2.0

// Package kubetest puts objects into an API server, fake or real, for the
// contract test of package sourcetest, and has the fake one.
package kubetest
