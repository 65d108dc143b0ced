// SPDX-License-Identifier: Apache-2.0

// Package kinds is the table of the Kubernetes kinds that the agent reads: for
// each, how it is asked for, which of its fields are kept, when two versions of
// it are the same to the model, and where it lands in the model's inputs.
// Packages kube (an API server) and files (a directory of YAML) read whatever
// is in the table: a new kind is one entry in All.
//
// The package does no I/O and has no Kubernetes client.
package kinds
