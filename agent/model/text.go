// SPDX-License-Identifier: Apache-2.0

package model

import "strings"

// The API server checks the names of objects, but not all that its users write where
// a name is meant, and files are checked by nobody. These functions are called
// for every endpoint of the cluster, where apimachinery's take ten times as long.

// validName says whether text is a DNS-1123 subdomain, as the names of pods and
// nodes are.
func validName(text string) bool {
	const most = 253
	if len(text) == 0 || len(text) > most {
		return false
	}
	// Each label begins and ends with a letter or a digit.
	before := byte('.')
	for i := range len(text) {
		c := text[i]
		inner := c == '-' || c == '.'
		if !inner && !lower(c) && !digit(c) || inner && before == '.' || c == '.' && before == '-' {
			return false
		}
		before = c
	}
	return before != '-' && before != '.'
}

// validPortName says whether text is a DNS-1123 label, as the name of a Service's port
// is, which a single port need not have.
func validPortName(text string) bool {
	const most = 63
	return text == "" || len(text) <= most && validName(text) && !strings.Contains(text, ".")
}

// validLabelValue says whether text is the value of a label, as the names of zones
// are.
func validLabelValue(text string) bool {
	const most = 63
	if len(text) > most {
		return false
	}
	for i := range len(text) {
		c := text[i]
		outer := lower(c) || digit(c) || 'A' <= c && c <= 'Z'
		inner := c == '-' || c == '.' || c == '_'
		if !outer && (!inner || i == 0 || i == len(text)-1) {
			return false
		}
	}
	return true
}

func lower(c byte) bool { return 'a' <= c && c <= 'z' }

func digit(c byte) bool { return '0' <= c && c <= '9' }
