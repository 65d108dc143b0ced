// SPDX-License-Identifier: Apache-2.0

// Package family names the two IP families, so that code that handles both is
// written once.
package family
