// SPDX-License-Identifier: Apache-2.0

// Package xds translates a model.Node into Envoy configuration: three generic
// listeners per address family (in pod mode, per pod) and one route
// configuration, none of which changes with Services, and for each frontend a
// cluster and its endpoints, named by the frontend's address. It also renders
// the bootstrap that Envoy starts with.
//
// Everything here is pure: the same node and configuration give the same bytes.
// Package xds/server sends the result to Envoy.
package xds
