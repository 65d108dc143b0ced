// SPDX-License-Identifier: Apache-2.0

package iptables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nodevoy/nodevoy/redirect/dump"
	"github.com/nodevoy/nodevoy/redirect/family"
)

// What getsockopt(2) gives of a legacy table (linux/netfilter_ipv4/ip_tables.h and
// ip6_tables.h): a name of 32 bytes and, in the information, the size of all
// entries at its end; in the entries, that size after the name, and the entries.
const (
	optInfo     = 64
	optEntries  = 65
	nameBytes   = 32
	infoBytes   = 84
	sizeOffset  = 80
	entriesHead = 40
)

// entry says where in an entry is what changes though the rule doesn't: by whom it
// can be reached, and how many packets it has met. Offsets are in bytes.
type entry struct {
	next, comeFrom, counters int
}

// layout is that of struct ipt_entry or ip6t_entry.
func layout(f family.Family) entry {
	return family.Pick(f, entry{next: 90, comeFrom: 92, counters: 96}, entry{next: 142, comeFrom: 144, counters: 152})
}

// legacyGeneration is a number of what the legacy tables hold: the same while the
// rules are. It is 0 when the kernel doesn't show them so.
func (t *Tables) legacyGeneration() (uint32, error) {
	names, err := legacyTables(t.family)
	if err != nil || names == nil {
		return 0, err
	}
	s, err := openLegacy(t.family)
	if err != nil {
		// iptables-legacy will say it too, and better.
		return 0, nil
	}
	defer s.close()
	sum := fnv.New32a()
	for _, table := range names {
		size, err := t.tableSize(s, table)
		if errors.Is(err, dump.ErrTooMuch) {
			return 0, err
		}
		var entries []byte
		if err == nil {
			entries, err = s.entries(table, size)
		}
		if err != nil || !constant(entries, layout(t.family)) {
			// Changed in between, or of another shape: then nothing is known.
			return 0, nil
		}
		_, _ = sum.Write(append([]byte(table), entries...))
	}
	return max(sum.Sum32(), 1), nil
}

// checkTable is dump.ErrTooMuch if a legacy table that is set up is beyond the bound.
func (t *Tables) checkTable(table string) error {
	if t.maxTable == 0 {
		return nil
	}
	s, err := openLegacy(t.family)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer s.close()
	_, err = t.tableSize(s, table)
	return err
}

// tableSize is the size of a table's entries, in bytes; dump.ErrTooMuch beyond the bound.
func (t *Tables) tableSize(s legacySocket, table string) (int, error) {
	info := make([]byte, infoBytes)
	copy(info[:nameBytes-1], table)
	if err := s.option(optInfo, info); err != nil {
		return 0, fmt.Errorf("ask for the size of legacy table %s: %w", table, err)
	}
	size := int(binary.NativeEndian.Uint32(info[sizeOffset:]))
	if t.maxTable > 0 && size > t.maxTable {
		return 0, fmt.Errorf("%s legacy table %s of %d bytes: %w", t.family, table, size, dump.ErrTooMuch)
	}
	return size, nil
}

// legacySocket is a raw socket, whose options are the legacy tables.
type legacySocket struct{ fd, level int }

func openLegacy(f family.Family) (legacySocket, error) {
	fd, err := unix.Socket(int(f), unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	return legacySocket{fd, family.Pick(f, unix.SOL_IP, unix.SOL_IPV6)}, err
}

func (s legacySocket) close() { _ = unix.Close(s.fd) }

// entries are the rules of a table of that size, as the kernel has them.
func (s legacySocket) entries(table string, size int) ([]byte, error) {
	entries := make([]byte, entriesHead+size)
	copy(entries[:nameBytes-1], table)
	binary.NativeEndian.PutUint32(entries[nameBytes:], uint32(size))
	if err := s.option(optEntries, entries); err != nil {
		return nil, err
	}
	return entries[entriesHead:], nil
}

// option is getsockopt(2) for a value of any size.
func (s legacySocket) option(option int, value []byte) error {
	length := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s.fd), uintptr(s.level), uintptr(option),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// constant clears what changes though no rule does; false when the entries are not
// what they should be.
func constant(entries []byte, at entry) bool {
	for len(entries) > 0 {
		if len(entries) < at.counters+16 {
			return false
		}
		next := int(binary.NativeEndian.Uint16(entries[at.next:]))
		if next < at.counters+16 || next > len(entries) {
			return false
		}
		clear(entries[at.comeFrom : at.comeFrom+4])
		clear(entries[at.counters : at.counters+16])
		entries = entries[next:]
	}
	return true
}
