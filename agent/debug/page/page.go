// SPDX-License-Identifier: Apache-2.0

// Package page is the page that the debug endpoint serves at /: HTML, style and
// JavaScript modules as they are in this directory. They are read by the browser as
// written, without a build, ask the endpoint's /v1 for everything that they show, and
// nobody else for anything. All that users of the cluster may have written is put into
// the page as text (dom.js).
package page

import (
	"embed"
	"io/fs"
)

//go:embed *.html *.css *.js
var files embed.FS

// Files are those of the page; it begins at index.html.
func Files() fs.FS { return files }
