// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// Numbers of nf_tables that the libraries lack.
const (
	generationID = 1 // NFTA_GEN_ID
	hookLocalOut = 3 // NF_INET_LOCAL_OUT
	protoINET    = 1 // NFPROTO_INET: both families
)

// NFTables names the nf_tables tables of one family, whoever made them; none on
// a kernel without nf_tables.
func NFTables(f family.Family) ([]string, error) {
	replies, err := nftables(unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, f)
	if err != nil && !noNFT(err) {
		return nil, fmt.Errorf("list %s nf_tables: %w", f, err)
	}
	var names []string
	for _, r := range replies {
		names = append(names, r.Text(unix.NFTA_TABLE_NAME))
	}
	return names, nil
}

// nftChain says whether nf_tables has the chain; dump.ErrTooMuch when it has more than
// MaxRules, or is jumped to from more, or after Untrusted when its table has too many.
func (t *Tables) nftChain(table, chain string) (there bool, err error) {
	flags, attrs := unix.NLM_F_DUMP, []*nl.RtAttr(nil)
	if t.maxTable == 0 {
		flags, attrs = 0, []*nl.RtAttr{
			nl.NewRtAttr(unix.NFTA_CHAIN_TABLE, nl.ZeroTerminated(table)), nl.NewRtAttr(unix.NFTA_CHAIN_NAME, nl.ZeroTerminated(chain)),
		}
	}
	replies, err := nftables(unix.NFT_MSG_GETCHAIN, flags, t.family, attrs...)
	switch {
	case errors.Is(err, unix.ENOENT), noNFT(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for nf_tables chain: %w", err)
	}
	var all uint32
	for _, r := range replies {
		if r.Text(unix.NFTA_CHAIN_TABLE) != table {
			continue
		}
		use := r.Number(unix.NFTA_CHAIN_USE)
		all += min(use, maxTableRules+1)
		if r.Text(unix.NFTA_CHAIN_NAME) != chain {
			continue
		}
		if there = true; use > MaxRules {
			err = dump.ErrTooMuch
		}
	}
	if t.maxTable > 0 && all > maxTableRules {
		return there, fmt.Errorf("%s nf_tables table %s of %d rules or more: %w", t.family, table, all, dump.ErrTooMuch)
	}
	return there, err
}

// Outputs names the chains of nf_tables that translate addresses of what this
// network namespace itself sends, and have rules: "inet table chain". The chain
// OUTPUT of iptables' own table nat is left out, since List shows it. The legacy
// backend has no such chains.
func (t *Tables) Outputs() ([]string, error) {
	if t.backend != netfilter.NFT {
		return nil, nil
	}
	replies, err := nftables(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, 0)
	if err != nil && !noNFT(err) {
		return nil, fmt.Errorf("list nf_tables chains: %w", err)
	}
	// As nft writes them.
	labels := map[family.Family]string{protoINET: "inet", family.V4: "ip", family.V6: "ip6"}
	var names []string
	for _, r := range replies {
		if r.family != t.family && r.family != protoINET || r.Text(unix.NFTA_CHAIN_TYPE) != "nat" || r.Number(unix.NFTA_CHAIN_USE) == 0 {
			continue
		}
		table, chain := r.Text(unix.NFTA_CHAIN_TABLE), r.Text(unix.NFTA_CHAIN_NAME)
		hook, err := r.Nest(unix.NFTA_CHAIN_HOOK)
		if err != nil {
			return nil, fmt.Errorf("read the hook of nf_tables chain %s: %w", chain, err)
		}
		elsewhere := hook.Get(unix.NFTA_HOOK_HOOKNUM) != nil && hook.Number(unix.NFTA_HOOK_HOOKNUM) != hookLocalOut
		if !elsewhere && (r.family != t.family || table != "nat" || chain != "OUTPUT") {
			names = append(names, fmt.Sprintf("%s %s %s", labels[r.family], table, chain))
		}
	}
	return names, nil
}

// Generation is a number that changes with every change of the tables, whoever
// makes it; 0 when there is no such number.
func (t *Tables) Generation() (uint32, error) {
	if t.backend != netfilter.NFT {
		return t.legacyGeneration()
	}
	replies, err := nftables(unix.NFT_MSG_GETGEN, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("ask nf_tables for its generation: %w", err)
	}
	for _, r := range replies {
		if generation := r.Number(generationID); generation != 0 {
			return generation, nil
		}
	}
	return 0, nil
}

// reply is about something of a family, by its attributes.
type reply struct {
	family family.Family
	dump.Attributes
}

// noNFT says whether an error means that the kernel has no nf_tables.
func noNFT(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) }

// nftables sends one request to nf_tables, on a socket of its own.
func nftables(message, flags int, f family.Family, attrs ...*nl.RtAttr) ([]reply, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, unix.NLM_F_ACK|flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(f), Version: nl.NFNETLINK_V0})
	for _, a := range attrs {
		req.AddData(a)
	}
	messages, err := dump.Collect(req, unix.NETLINK_NETFILTER, maxOutput)
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return nil, errno
	case err != nil:
		return nil, err
	}
	replies := make([]reply, 0, len(messages))
	for _, m := range messages {
		attrs, err := dump.Parse(m, nl.SizeofNfgenmsg)
		if err != nil {
			return nil, err
		}
		replies = append(replies, reply{family.Family(m[0]), attrs})
	}
	return replies, nil
}
