// SPDX-License-Identifier: Apache-2.0

// Package enum reads settings that are one of a few words.
package enum

import (
	"fmt"
	"slices"
	"strings"
)

// Read sets value to the word that text is. The error, which leaves value as it
// was, names what was to be read, such as "mode of redirection", and the words it
// may be.
func Read[T ~string](value *T, text []byte, what string, words ...T) error {
	if word := T(text); slices.Contains(words, word) {
		*value = word
		return nil
	}
	names := make([]string, len(words))
	for i, w := range words {
		names[i] = string(w)
	}
	last := len(names) - 1
	return fmt.Errorf("%q is no %s: want %s or %s", text, what, strings.Join(names[:last], ", "), names[last])
}
