// SPDX-License-Identifier: Apache-2.0

package model

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

// FuzzText: the functions agree with apimachinery's.
func FuzzText(f *testing.F) {
	for _, text := range []string{
		"", "a", "-", ".", "a.b", "a..b", "a.-b", "a-.b", "a--b", "-a", "a-", ".a", "a.", "A", "a_b", "_a", "a b", "a\n",
		"a\nb", "\x00", "\u00e9", "\xff", "0.9-z", "eu-West_1.b", "%PROTOCOL%", `a"b`,
		strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 253), strings.Repeat("a", 254),
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, want := validName(text), len(validation.IsDNS1123Subdomain(text)) == 0; got != want {
			t.Errorf("validName(%q) is %v, want %v", text, got, want)
		}
		if got, want := validPortName(text), text == "" || len(validation.IsDNS1123Label(text)) == 0; got != want {
			t.Errorf("validPortName(%q) is %v, want %v", text, got, want)
		}
		if got, want := validLabelValue(text), len(validation.IsValidLabelValue(text)) == 0; got != want {
			t.Errorf("validLabelValue(%q) is %v, want %v", text, got, want)
		}
	})
}
