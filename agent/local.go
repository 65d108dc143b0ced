// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/nodevoy/nodevoy/agent/model"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/plan"
	"github.com/nodevoy/nodevoy/redirect/route"
)

// localNetworks is what the node's kernel takes for its own, for host mode, in
// which Envoy must not call it: interfaces come and go while the agent runs.
type localNetworks struct {
	// read is nil in pod mode.
	read func() ([]netip.Prefix, error)
	// known is what the last read that succeeded gave, sorted; err is why the last
	// read failed, nil when it did not.
	known []netip.Prefix
	err   error
}

// openLocal reads the networks for the first time, in host mode.
func openLocal(cfg plan.Config) (localNetworks, error) {
	if cfg.Mode == plan.PodMode {
		return localNetworks{}, nil
	}
	read := func() ([]netip.Prefix, error) { return readLocal(cfg.Families) }
	known, err := read()
	return localNetworks{read: read, known: known}, err
}

// readLocal asks the kernel for them, sorted.
func readLocal(families []family.Family) ([]netip.Prefix, error) {
	network, err := route.Open()
	if err != nil {
		return nil, err
	}
	var all []netip.Prefix
	var errs []error
	for _, f := range families {
		local, err := network.Local(f)
		all, errs = append(all, local...), append(errs, err)
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	if err := errors.Join(append(errs, network.Close())...); err != nil {
		return nil, fmt.Errorf("read the node's own addresses: %w", err)
	}
	return slices.Compact(all), nil
}

// relocal reads the node's own networks again and says whether they have changed.
// What was known stays known when they can't be read.
func (l *loop) relocal() bool {
	if l.local.read == nil {
		return false
	}
	now, err := l.local.read()
	l.note(&l.local.err, "host mode goes on with what was known", err)
	if err != nil || slices.Equal(l.local.known, now) {
		return false
	}
	l.local.known = now
	return true
}

// checkLocal says whether the node's view has to be made anew, because the node's
// own networks have changed.
func (l *loop) checkLocal() bool {
	if l.round.plan == nil || !l.relocal() {
		return false
	}
	l.round.change(time.Now())
	return true
}

// inputs are the objects, and what the node's kernel says of itself: read now, as
// an interface may have come with a pod.
func (l *loop) inputs() model.Inputs {
	in := l.source.Inputs()
	l.relocal()
	in.NodeNetworks = l.local.known
	return in
}
