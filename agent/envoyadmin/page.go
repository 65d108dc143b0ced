// SPDX-License-Identifier: Apache-2.0

package envoyadmin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxPage bounds a page in bytes: a configuration dump of as many Services as Envoy
// holds by default has a third of it.
const maxPage = 64 << 20

// errTooLarge says that a page is longer than maxPage.
var errTooLarge = errors.New("envoy's page is too large")

// Pages are those that Page reads: they change nothing in Envoy.
func Pages() []string { return []string{"clusters", "config_dump", "listeners", "stats"} }

// Page reads one of Pages, until ctx ends. The text is as Envoy sends it, except that
// what may be secret in a configuration dump is replaced. The caller closes it. A text
// that is too long, or breaks off, ends with an error other than io.EOF.
func (e *Envoy) Page(ctx context.Context, page string, query url.Values) (contentType string, text io.ReadCloser, err error) {
	if !slices.Contains(Pages(), page) {
		return "", nil, fmt.Errorf("envoy has no page %q to read", page)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy/"+page+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return "", nil, err
	}
	resp, err := e.pages.Do(req)
	if err != nil {
		return "", nil, fmt.Errorf("read envoy's page %s: %w", page, err)
	}
	if resp.StatusCode != http.StatusOK {
		said, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		err = errors.Join(err, resp.Body.Close())
		return "", nil, errors.Join(fmt.Errorf("read envoy's page %s: %s: %s", page, resp.Status, strings.TrimSpace(string(said))), err)
	}
	text = &bounded{ReadCloser: resp.Body, left: maxPage}
	if page == "config_dump" {
		text = redacted(text)
	}
	return resp.Header.Get("Content-Type"), text, nil
}

// bounded is a reader that fails beyond a number of bytes.
type bounded struct {
	io.ReadCloser
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}
