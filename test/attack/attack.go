// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
)

// attack is something that a pod may do to its node's Envoy, by nothing but
// connections to a Service of its own.
type attack struct {
	// Name is unique; What is done, in a line.
	Name, What string
	// run does it, in a process of the attacking pod, until ctx ends.
	run func(ctx context.Context, a *attacker) error
	// processes is how many processes of the pod do it; 0 means 1. A process may
	// have no more files than Envoy.
	processes int
	// port is the port of the attackers' Service, and with it the class and how
	// the backend behaves.
	port uint16
	// manyPorts gives the attackers a Service of manyPorts ports.
	manyPorts bool
	// connections is how many connections of a pod are redirected; 0 for what the flags
	// say.
	connections int64
	// vanish cuts the attackers off the network and kills them, in place of an end.
	vanish bool
	// lingers says that connections outlive the attack, up to the limit of each pod's,
	// as the server takes nothing. The kernel of a client that has ended goes on sending
	// for up to two minutes, which nobody can tell from a slow server, and Envoy notices
	// no reset of a connection that it doesn't read from, until xds.Config.StallTimeout.
	lingers bool
	// Short is part of the tests; the others are in the long form only.
	Short bool
	// harms and slows say why the attack still succeeds, from the lists of those: it is
	// made and reported, but that doesn't fail the suite.
	harms, slows flaw
}

// attacks is the table of all attacks, in the order in which they are made.
func attacks() []attack {
	all := slices.Concat(headerAttacks(), uploadAttacks(), connectionAttacks(), requestAttacks(), frameAttacks(), speedAttacks())
	for i, a := range all {
		all[i].harms, all[i].slows = harms()[a.Name], slows(a.Name)
	}
	return all
}

// find is the attack of this name.
func find(name string) (attack, error) {
	all := attacks()
	i := slices.IndexFunc(all, func(a attack) bool { return a.Name == name })
	if i < 0 {
		return attack{}, fmt.Errorf("no attack is named %q", name)
	}
	return all[i], nil
}
