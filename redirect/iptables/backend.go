// SPDX-License-Identifier: Apache-2.0

// Package iptables reads and writes iptables, of one backend and one family at
// a time, through the node's own commands: go-iptables finds and lists, its own
// Restore writes. It never lists what it was not asked for, and never makes the
// kernel set up a table by looking at it. Fake is the same without a kernel.
package iptables

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/coreos/go-iptables/iptables"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Errors that callers branch on.
var (
	// ErrNotFound: there is no chain of that name.
	ErrNotFound = errors.New("no such chain")
	// ErrUnreadable: nft wrote rules into the chain that iptables can't show.
	ErrUnreadable = errors.New("the chain has rules that iptables can't read, made by nft")
	// ErrNoCommand: the commands of this backend and family are not installed.
	ErrNoCommand = errors.New("command not found")
)

// Backend is the part of the kernel that iptables commands write to.
type Backend = netfilter.Backend

// The backends.
const (
	AutoBackend = netfilter.AutoBackend
	NFT         = netfilter.NFT
	Legacy      = netfilter.Legacy
)

// versionWord is the backend as "iptables --version" shows it, in parentheses.
func versionWord(b Backend) string {
	if b == Legacy {
		return "legacy"
	}
	return "nf_tables"
}

// waitSeconds bounds the wait for the lock that legacy commands share.
const waitSeconds = 5

// Tables are the tables of one backend and one family.
type Tables struct {
	backend Backend
	family  family.Family
	list    *iptables.IPTables
	restore string
}

// Open finds the commands of a backend and family; ErrNoCommand without them.
func Open(b Backend, f family.Family) (*Tables, error) {
	command, err := find(b, f)
	if err != nil {
		return nil, err
	}
	proto := iptables.ProtocolIPv4
	if f == family.V6 {
		proto = iptables.ProtocolIPv6
	}
	list, err := iptables.New(iptables.Path(command), iptables.IPFamily(proto), iptables.Timeout(waitSeconds))
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", command, err)
	}
	restore, err := exec.LookPath(command + "-restore")
	if err != nil {
		return nil, fmt.Errorf("%s-restore: %w", command, ErrNoCommand)
	}
	return &Tables{backend: b, family: f, list: list, restore: restore}, nil
}

// find names the command: the one called after the backend, or the plain one
// when it says it is of that backend.
func find(b Backend, f family.Family) (string, error) {
	plain := "iptables"
	if f == family.V6 {
		plain = "ip6tables"
	}
	named := plain + "-" + string(b)
	if _, err := exec.LookPath(named); err == nil {
		return named, nil
	}
	out, err := exec.Command(plain, "--version").Output()
	if err == nil && strings.Contains(string(out), "("+versionWord(b)) {
		return plain, nil
	}
	return "", fmt.Errorf("%s: %w", named, ErrNoCommand)
}

// Backend is the backend it was opened for.
func (t *Tables) Backend() Backend { return t.backend }

// Family is the family it was opened for.
func (t *Tables) Family() family.Family { return t.family }
