// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
	"github.com/nodevoy/nodevoy/redirect/plan"
)

// ErrDisengaged says that Disengage was called meanwhile, so pods are not redirected.
var ErrDisengaged = errors.New("redirection was stopped meanwhile")

// ErrBackendUndecided says that the configuration still leaves the iptables backend
// to the probe.
var ErrBackendUndecided = errors.New("apply plan: the iptables backend is not decided, probe the node first")

// Applier makes a node's kernel hold plans. Disengage, Refresh and Engaged may be
// called at any time; the other methods wait for each other.
type Applier struct {
	cfg    plan.Config
	kernel Kernel
	log    *zap.Logger
	*sources

	mu sync.Mutex
	// members has what each frontend set is known to hold, sorted; a set that
	// is missing here has to be listed first.
	members map[string][]netfilter.Member
	// rules has the rules that each family was last seen to have in place.
	rules map[family.Family]string
	// checked has the generation of the tables in which Drift last found each
	// family's rules in place.
	checked map[family.Family]uint32
	// swept is set once nothing of another plan's shape is left.
	swept bool
	// checks counts Drift calls.
	checks int

	// inPod is set in a pod's network namespace, where only what a PodPlan has
	// is ours; there is no Network then.
	inPod bool
	// last has the families as they were last applied in a pod.
	last map[family.Family]plan.FamilyPlan
	// outputs has the rules of the pod's nat OUTPUT, as listOutputs found them.
	outputs map[family.Family][]string
}

// New opens the kernel of the network namespace the process is in. It changes
// nothing there.
func New(cfg plan.Config, log *zap.Logger) (*Applier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	k, err := OpenKernel()
	if err != nil {
		return nil, err
	}
	return NewWith(cfg, k, log), nil
}

// NewWith is New for a kernel that is open already, or a fake one. cfg must be
// valid.
func NewWith(cfg plan.Config, k Kernel, log *zap.Logger) *Applier {
	return &Applier{
		cfg: cfg, kernel: k, log: log,
		sources: &sources{sets: k.Urgent, group: &Group{}, engaged: map[family.Family]engagement{}},
		members: map[string][]netfilter.Member{},
		rules:   map[family.Family]string{},
		checked: map[family.Family]uint32{},
		last:    map[family.Family]plan.FamilyPlan{},
		outputs: map[family.Family][]string{},
	}
}

// NewInPod is for a pod's network namespace, of which k is the kernel; it needs
// no Network. All appliers of a node share g.
func NewInPod(cfg plan.Config, k Kernel, g *Group, log *zap.Logger) *Applier {
	a := NewWith(cfg, k, log)
	a.group, a.inPod = g, true
	return a
}

// Forget drops what is known of the kernel, so that the next Apply looks at all
// of it: for when somebody else has written there with right.
func (a *Applier) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.members)
	clear(a.rules)
	clear(a.checked)
	clear(a.last)
	a.swept = false
}

// Close closes the sockets to the kernel. What was applied stays.
func (a *Applier) Close() error {
	a.close()
	return a.kernel.Close()
}

// Prepare makes what Envoy needs before anything is redirected: the addresses
// its listeners bind to. It changes nothing that is there.
func (a *Applier) Prepare(_ context.Context, desired *plan.Plan) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for i := range desired.Families {
		errs = append(errs, a.applyAddress(&desired.Families[i]))
	}
	return errors.Join(errs...)
}

// Withdraw removes what the plan has no more: members of the sets. It adds
// nothing and never touches rules, so it is safe at any time.
func (a *Applier) Withdraw(ctx context.Context, desired *plan.Plan) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	if a.inPod {
		errs = append(errs, a.withdrawFamilies(desired))
	}
	for i := range desired.Families {
		f := &desired.Families[i]
		errs = append(errs, a.withdrawPods(f.Pods))
		for _, s := range f.Frontends {
			errs = append(errs, a.withdrawFrontends(ctx, s))
		}
	}
	return errors.Join(errs...)
}

// Apply makes everything hold: sets, addresses and routes, chains, frontends,
// jumps, and pods last. Rules that were seen in place are looked at again only
// after Drift has found something, so that a change of members costs no more
// than the members. One family's failure doesn't hold up the other. It returns
// ErrDisengaged when Disengage was called after it began: then pods are not
// redirected.
func (a *Applier) Apply(ctx context.Context, desired *plan.Plan) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.apply(ctx, desired, a.group.Ticket())
}

// ApplyWith is Apply with a ticket from before.
func (a *Applier) ApplyWith(ctx context.Context, desired *plan.Plan, ticket uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.apply(ctx, desired, ticket)
}

func (a *Applier) apply(ctx context.Context, desired *plan.Plan, ticket uint64) error {
	if a.cfg.Backend == netfilter.AutoBackend {
		return ErrBackendUndecided
	}
	if desired.Mechanism == plan.TPROXY {
		// A bridge may have come since the probe, with the node's first pod.
		if err := a.kernel.CheckBridges(a.cfg.Families); err != nil {
			return fmt.Errorf("apply plan: %w", err)
		}
	}
	if err := a.sweep(ctx, desired); err != nil {
		return err
	}
	if a.inPod {
		if err := a.listOutputs(ctx, desired); err != nil {
			return err
		}
	}
	var errs []error
	for i := range desired.Families {
		f := &desired.Families[i]
		step := a.applyFamily
		if a.inPod {
			step = a.applyPodFamily
		}
		if err := step(ctx, f, ticket); err != nil {
			delete(a.rules, f.Family)
			delete(a.last, f.Family)
			errs = append(errs, fmt.Errorf("%s: %w", f.Family, err))
		}
	}
	return errors.Join(errs...)
}

func (a *Applier) applyFamily(ctx context.Context, f *plan.FamilyPlan, ticket uint64) error {
	tables, err := a.kernel.TablesOf(a.cfg.Backend, f.Family)
	if err != nil {
		return err
	}
	for _, s := range f.Sets() {
		if err := a.ensureSet(ctx, tables, s.SetSpec); err != nil {
			return err
		}
	}
	if err := a.applyAddress(f); err != nil {
		return err
	}
	if f.Routing != nil {
		if err := a.kernel.Network.AddRule(*f.Routing); err != nil {
			return err
		}
	}
	text := f.RenderRules()
	inPlace := a.rules[f.Family] == text
	if !inPlace {
		if err := a.applyChains(ctx, tables, f); err != nil {
			return err
		}
	}
	if err := a.applyFrontends(ctx, f.Frontends); err != nil {
		return err
	}
	if !inPlace {
		if err := a.applyJumps(ctx, tables, f); err != nil {
			return err
		}
		a.rules[f.Family] = text
		a.log.Info("rules applied", zap.Stringer("family", f.Family), zap.Stringer("backend", tables.Backend()),
			zap.Int("chains", len(f.Chains)), zap.Int("jumps", len(f.Jumps)))
	}
	return a.engage(f.Pods, ticket)
}

// applyAddress puts the listeners' address on lo, unless it is there.
func (a *Applier) applyAddress(f *plan.FamilyPlan) error {
	have, err := a.kernel.Network.Addresses(f.Family)
	if err != nil || slices.Contains(have, f.Address) {
		return err
	}
	return a.kernel.Network.AddAddress(f.Address)
}
