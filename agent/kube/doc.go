// SPDX-License-Identifier: Apache-2.0

// Package kube reads the agent's inputs from the API server: it lists and
// watches every kind in the table of package kinds, narrowed by selectors on
// the server and trimmed to the fields the model reads before they are stored.
// It publishes nothing before every kind has been read; after that, any change
// says no more than "look again". It knows of each kind whether it is read,
// followed, or failing and why, and it writes Events about users' objects.
package kube
