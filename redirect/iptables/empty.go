// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/family"
	"github.com/nodevoy/nodevoy/redirect/netfilter"
)

// verdictAccept is NF_ACCEPT, the policy that lets everything pass.
const verdictAccept = 1

// dropAttempts is how often a table is looked at again because somebody changed
// some rule meanwhile.
const dropAttempts = 5

// DropEmpty removes a table in which nobody has anything: it holds no chains but
// the kernel's own, and these no rules, and let everything pass. The nft commands
// make it so when a table is first used and never remove it. Anything else is
// left alone, as are the tables of the legacy backend, which the kernel keeps.
func (t *Tables) DropEmpty(table string) error {
	if t.backend != netfilter.NFT {
		return nil
	}
	var err error
	for range dropAttempts {
		var empty bool
		var generation uint32
		if generation, err = t.Generation(); err != nil {
			return err
		}
		if empty, err = nftEmpty(t.family, table); err != nil || !empty {
			return err
		}
		// The kernel refuses it if anything has changed since it was looked at.
		err = nftDelete(t.family, table, generation)
		if !errors.Is(err, unix.ERESTART) {
			break
		}
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the empty %s table %s: %w", t.family, table, err)
	}
	return nil
}

// nftEmpty says whether a table is there and nobody has anything in it.
func nftEmpty(f family.Family, table string) (bool, error) {
	name := nl.ZeroTerminated(table)
	replies, err := nftables(unix.NFT_MSG_GETTABLE, 0, f, nl.NewRtAttr(unix.NFTA_TABLE_NAME, name))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil || len(replies) != 1 {
		return false, fmt.Errorf("look at nf_tables table %s: %d replies: %w", table, len(replies), cmp.Or(err, error(unix.EBADMSG)))
	}
	// How many chains, sets and objects are in the table.
	entries := replies[0].Number(unix.NFTA_TABLE_USE)
	replies, err = nftables(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, f)
	if err != nil {
		return false, fmt.Errorf("list nf_tables chains: %w", err)
	}
	for _, r := range replies {
		if r.Text(unix.NFTA_CHAIN_TABLE) != table {
			continue
		}
		hooked := r.Get(unix.NFTA_CHAIN_HOOK) != nil
		if !hooked || r.Number(unix.NFTA_CHAIN_USE) > 0 || r.Number(unix.NFTA_CHAIN_POLICY) != verdictAccept {
			return false, nil
		}
		entries--
	}
	return entries == 0, nil
}

// nftDelete removes a table with all it holds, if the generation is still the
// one given; else it returns ERESTART.
func nftDelete(f family.Family, table string, generation uint32) error {
	begin := batch(unix.NFNL_MSG_BATCH_BEGIN)
	begin.AddData(nl.NewRtAttr(unix.NFNL_BATCH_GENID, binary.BigEndian.AppendUint32(nil, generation)))
	remove := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_DELTABLE, unix.NLM_F_ACK)
	remove.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(f), Version: nl.NFNETLINK_V0})
	remove.AddData(nl.NewRtAttr(unix.NFTA_TABLE_NAME, nl.ZeroTerminated(table)))
	var message []byte
	for _, r := range []*nl.NetlinkRequest{begin, remove, batch(unix.NFNL_MSG_BATCH_END)} {
		message = append(message, r.Serialize()...)
	}
	return transact(message)
}

// batch is the message that begins or ends a transaction of nf_tables.
func batch(message int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(message, 0)
	req.AddData(&nl.Nfgenmsg{Version: nl.NFNETLINK_V0, ResId: nl.Swap16(unix.NFNL_SUBSYS_NFTABLES)})
	return req
}

// transact sends a transaction and waits for the one answer it asks for, or for
// the error that it was refused with.
func transact(message []byte) (err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: waitSeconds}); err != nil {
		return fmt.Errorf("limit netlink's wait: %w", err)
	}
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("write to netlink: %w", err)
	}
	answer := make([]byte, unix.Getpagesize())
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return fmt.Errorf("read from netlink: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(answer[:n])
	if err != nil || len(messages) == 0 || messages[0].Header.Type != unix.NLMSG_ERROR || len(messages[0].Data) < 4 {
		return fmt.Errorf("read from netlink: no answer in %d bytes: %w", n, cmp.Or(err, error(unix.EBADMSG)))
	}
	if code := int32(binary.NativeEndian.Uint32(messages[0].Data)); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}
