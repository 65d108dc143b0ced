// SPDX-License-Identifier: Apache-2.0

// Package files reads the agent's inputs from a directory of ordinary
// Kubernetes YAML or JSON (the kinds in the table of package kinds, and v1
// List; any number in a file), and reads it again whenever it changes. It is
// what the demo, `nodevoy render` and tests use in place of an API server.
//
// Documents are read strictly. One with a fault in it is reported by file, line,
// object and field; the last good version of its object stays in force, and all
// other documents are read. A file that can't be separated into documents is
// refused whole. Objects are taken as written: nothing is defaulted but the
// namespace. One whose document does not change keeps its pointer.
package files
