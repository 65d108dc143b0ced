// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
)

// attributeMask leaves of an attribute's type what is not a flag (NLA_TYPE_MASK).
const attributeMask = 0x3fff

// NFTables names the nf_tables tables of one family, whoever made them; none on
// a kernel without nf_tables.
func NFTables(f family.Family) ([]string, error) {
	replies, err := nftables(unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, f)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s nf_tables: %w", f, err)
	}
	var names []string
	for _, r := range replies {
		attrs, err := nl.ParseRouteAttr(r[nl.SizeofNfgenmsg:])
		if err != nil {
			return nil, fmt.Errorf("list %s nf_tables: %w", f, err)
		}
		for _, a := range attrs {
			if a.Attr.Type&attributeMask == unix.NFTA_TABLE_NAME {
				names = append(names, nl.BytesToString(a.Value))
			}
		}
	}
	return names, nil
}

// nftChain says whether nf_tables has the chain; ErrTooMuch when it has more than
// MaxRules, or is jumped to from more.
func nftChain(f family.Family, table, chain string) (bool, error) {
	replies, err := nftables(unix.NFT_MSG_GETCHAIN, 0, f,
		nl.NewRtAttr(unix.NFTA_CHAIN_TABLE, nl.ZeroTerminated(table)),
		nl.NewRtAttr(unix.NFTA_CHAIN_NAME, nl.ZeroTerminated(chain)))
	switch {
	// EINVAL and EOPNOTSUPP: the kernel has no nf_tables.
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for nf_tables chain: %w", err)
	}
	for _, r := range replies {
		attrs, err := attributes(r)
		if err != nil {
			return false, err
		}
		if number(attrs[unix.NFTA_CHAIN_USE]) > MaxRules {
			return true, ErrTooMuch
		}
	}
	return true, nil
}

// generationID is NFTA_GEN_ID.
const generationID = 1

// Generation is a number that changes with every change of the tables, whoever
// makes it; 0 when there is no such number.
func (t *Tables) Generation() (uint32, error) {
	if t.backend != NFT {
		return t.legacyGeneration()
	}
	replies, err := nftables(unix.NFT_MSG_GETGEN, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("ask nf_tables for its generation: %w", err)
	}
	for _, r := range replies {
		attrs, err := nl.ParseRouteAttr(r[nl.SizeofNfgenmsg:])
		if err != nil {
			return 0, fmt.Errorf("ask nf_tables for its generation: %w", err)
		}
		for _, a := range attrs {
			if a.Attr.Type&attributeMask == generationID && len(a.Value) == 4 {
				return binary.BigEndian.Uint32(a.Value), nil
			}
		}
	}
	return 0, nil
}

// nftables sends one request to nf_tables, on a socket of its own.
func nftables(message, flags int, f family.Family, attrs ...*nl.RtAttr) ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|message, unix.NLM_F_ACK|flags)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(f), Version: nl.NFNETLINK_V0})
	for _, a := range attrs {
		req.AddData(a)
	}
	replies, err := dump.Collect(req, unix.NETLINK_NETFILTER, maxOutput)
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return nil, errno
	case errors.Is(err, dump.ErrTooMuch):
		return nil, fmt.Errorf("%w: %w", ErrTooMuch, err)
	}
	return replies, err
}
