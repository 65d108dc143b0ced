// SPDX-License-Identifier: Apache-2.0

package model

import (
	"fmt"

	"k8s.io/apimachinery/pkg/labels"
)

// Selector selects objects by their labels, written as `kubectl get -l` takes
// it. The zero value selects by RedirectLabel=RedirectEnabled.
type Selector struct {
	parsed labels.Selector
}

// String is the selector as it is written.
func (s Selector) String() string {
	if s.parsed == nil {
		return RedirectLabel + "=" + RedirectEnabled
	}
	return s.parsed.String()
}

// MarshalText writes the selector as flags do.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a selector. An empty one is refused: it would opt in
// every namespace there is.
func (s *Selector) UnmarshalText(text []byte) error {
	parsed, err := labels.Parse(string(text))
	if err != nil {
		return fmt.Errorf("%q is no label selector: %w", text, err)
	}
	if parsed.Empty() {
		return fmt.Errorf("%q selects everything", text)
	}
	s.parsed = parsed
	return nil
}

func (s Selector) matches(set map[string]string) bool {
	if s.parsed == nil {
		return set[RedirectLabel] == RedirectEnabled
	}
	return s.parsed.Matches(labels.Set(set))
}
