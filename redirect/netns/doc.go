// SPDX-License-Identifier: Apache-2.0

// Package netns finds the network namespaces of pods and enters them. What comes
// in is the pods of the node and their addresses; what goes out is a Namespace for each
// pod that is asked for, held open by a file descriptor, in which a function can be
// run. A namespace is known by its inode number.
//
// Neither a CNI plugin nor the container runtime is asked: the runtime's mounts of
// network namespaces are listed, and processes if that is wanted. A namespace is a
// pod's when the pod's address is on a link inside. Whoever may administer a pod's
// network can put any address there, so all pods exclude each other, and the node's
// own routes and cgroups decide where addresses don't: see Finder. Nothing is
// mounted, and nothing in a namespace is changed.
package netns
