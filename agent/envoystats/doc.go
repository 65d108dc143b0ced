// SPDX-License-Identifier: Apache-2.0

// Package envoystats turns Envoy's statistics into nodevoy's metrics. It is pure: what
// comes in is the text of Envoy's /stats/prometheus with the filter of this package, what goes
// out are metric families with names and labels of nodevoy. One table says what each
// is made of and what it is for.
package envoystats
