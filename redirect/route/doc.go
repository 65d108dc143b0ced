// SPDX-License-Identifier: Apache-2.0

// Package route puts addresses on the loopback interface, and makes the policy
// rule and route by which packets with a mark are delivered to this host.
// Everything is idempotent: adding what is there, or removing what is not, is no
// error. A listing that the kernel says was interrupted by a change is repeated;
// an error always means that nothing is known, never that there is nothing. Fake
// is the same without a kernel.
package route
