// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/family"
)

// hookLocalOut is NF_INET_LOCAL_OUT, protoINET NFPROTO_INET: both families.
const (
	hookLocalOut = 3
	protoINET    = 1
)

// Outputs names the chains of nf_tables that translate addresses of what this
// network namespace itself sends, and have rules: "inet table chain". The chain
// OUTPUT of iptables' own table nat is left out, since List shows it. The legacy
// backend has no such chains.
func (t *Tables) Outputs() ([]string, error) {
	if t.backend != NFT {
		return nil, nil
	}
	replies, err := nftables(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, 0)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list nf_tables chains: %w", err)
	}
	var names []string
	for _, r := range replies {
		name, err := t.output(r)
		if err != nil {
			return nil, err
		}
		if name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// output names the chain of a reply if it is one that Outputs is after.
func (t *Tables) output(reply []byte) (string, error) {
	of := family.Family(reply[0])
	if of != t.family && of != protoINET {
		return "", nil
	}
	attrs, err := attributes(reply)
	if err != nil {
		return "", err
	}
	table, chain := text(attrs[unix.NFTA_CHAIN_TABLE]), text(attrs[unix.NFTA_CHAIN_NAME])
	if text(attrs[unix.NFTA_CHAIN_TYPE]) != "nat" || number(attrs[unix.NFTA_CHAIN_USE]) == 0 {
		return "", nil
	}
	hook, err := nl.ParseRouteAttr(attrs[unix.NFTA_CHAIN_HOOK])
	if err != nil {
		return "", fmt.Errorf("read the hook of nf_tables chain %s: %w", chain, err)
	}
	for _, h := range hook {
		if h.Attr.Type&attributeMask == unix.NFTA_HOOK_HOOKNUM && number(h.Value) != hookLocalOut {
			return "", nil
		}
	}
	if of == t.family && table == "nat" && chain == "OUTPUT" {
		return "", nil
	}
	return fmt.Sprintf("%s %s %s", label(of), table, chain), nil
}

// text is an attribute that ends with a zero byte, empty for want of one.
func text(value []byte) string {
	s, _, _ := strings.Cut(string(value), "\x00")
	return s
}

// label is the family as nft writes it.
func label(f family.Family) string {
	switch f {
	case family.V4:
		return "ip"
	case family.V6:
		return "ip6"
	default:
		return "inet"
	}
}
