// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Whole is a share of all events.
const Whole = 1 << 20

// Filter says which events of connections the kernel hands over. What it leaves out
// costs this process nothing.
type Filter struct {
	// Sources are the clients whose connections are wanted. The kernel looks at the last
	// 32 bits of an address only, and at none if there are too many.
	Sources []netip.Addr
	// Except are the few addresses whose connections are not wanted if they answer.
	Except []netip.Addr
	// Share of Whole is the share of connections that is wanted, chosen by their
	// addresses and ports: an end comes if the beginning came.
	Share uint32
}

// maxSources is how many addresses are looked for in the kernel: a filter may have 4096
// instructions, and its size counts against net.core.optmem_max.
const maxSources = 500

// layout is where a message has what the filter looks at. The kernel writes the client's
// direction first, and in it the addresses first (ctnetlink_conntrack_event).
type layout struct {
	family                                 uint32
	src, dst, number, sport, dport, answer uint32
}

// layouts are those of IPv4 and IPv6; of addresses, src and dst are the last
// 32 bits, and answer is where one begins.
func layouts() [2]layout {
	return [2]layout{
		{unix.AF_INET, 32, 40, 52, 60, 68, 84},
		{unix.AF_INET6, 44, 64, 76, 84, 92, 108},
	}
}

// Where messages of either family have the family, and the type of their first attribute.
const familyAt, firstAt = 16, 22

// Where the filter keeps what it has read.
const srcSlot, dstSlot, portsSlot = 0, 1, 2

// all is what a filter returns for a message that is handed over as a whole.
const all = 1 << 31

// program makes the filter's program, of the kernel's classic kind. A message of a
// layout that it doesn't know is handed over.
func (f Filter) program(withSources bool) ([]bpf.RawInstruction, error) {
	if f.Share == 0 || len(f.Sources) == 0 {
		return bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: 0}})
	}
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: firstAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: firstType(), SkipTrue: 1},
		bpf.RetConstant{Val: all},
	}
	out = append(out, f.read()...)
	if withSources && len(f.Sources) <= maxSources {
		out = append(out, f.sources()...)
	}
	if f.Share < Whole {
		out = append(out, f.sample()...)
	}
	return bpf.Assemble(append(out, bpf.RetConstant{Val: all}))
}

// firstType is the type of the first attribute as a big-endian load reads it.
func firstType() uint32 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], attrOrig|unix.NLA_F_NESTED)
	return uint32(binary.BigEndian.Uint16(b[:]))
}

// read keeps addresses and ports, and drops other families and protocols, and what the
// excepted addresses answer.
func (f Filter) read() []bpf.Instruction {
	var blocks [2][]bpf.Instruction
	for i, at := range layouts() {
		blocks[i] = []bpf.Instruction{
			bpf.LoadAbsolute{Off: at.number, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: TCP, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: UDP, SkipTrue: 1},
			bpf.RetConstant{Val: 0},
		}
		for _, ip := range f.Except {
			if ip.Is6() == (at.family == unix.AF_INET6) {
				blocks[i] = append(blocks[i], at.except(ip)...)
			}
		}
		blocks[i] = append(blocks[i],
			bpf.LoadAbsolute{Off: at.dport, Size: 2},
			bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 16},
			bpf.TAX{},
			bpf.LoadAbsolute{Off: at.sport, Size: 2},
			bpf.ALUOpX{Op: bpf.ALUOpOr},
			bpf.StoreScratch{Src: bpf.RegA, N: portsSlot},
			bpf.LoadAbsolute{Off: at.dst, Size: 4},
			bpf.StoreScratch{Src: bpf.RegA, N: dstSlot},
			bpf.LoadAbsolute{Off: at.src, Size: 4},
			bpf.StoreScratch{Src: bpf.RegA, N: srcSlot},
		)
	}
	first, second := layouts()[0], layouts()[1]
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: familyAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: second.family, SkipTrue: uint8(len(blocks[0]) + 3)},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: first.family, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	}
	out = append(out, blocks[0]...)
	out = append(out, bpf.Jump{Skip: uint32(len(blocks[1]))})
	return append(out, blocks[1]...)
}

// except drops what an address answers.
func (at layout) except(ip netip.Addr) []bpf.Instruction {
	const perWord = 2
	var out []bpf.Instruction
	address := ip.AsSlice()
	for i := 0; i < len(address); i += 4 {
		rest := (len(address)-i)/4*perWord - perWord + 1
		out = append(out,
			bpf.LoadAbsolute{Off: at.answer + uint32(i), Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(address[i:]), SkipTrue: uint8(rest)},
		)
	}
	return append(out, bpf.RetConstant{Val: 0})
}

// sources drops what comes from others, by a search among the sorted addresses. The
// address is in the accumulator.
func (f Filter) sources() []bpf.Instruction {
	keys := make([]uint32, 0, len(f.Sources))
	for _, ip := range f.Sources {
		keys = append(keys, low(ip))
	}
	slices.Sort(keys)
	out := search(slices.Compact(keys))
	for i := range out {
		if jump, is := out[i].(bpf.Jump); is && jump.Skip == found {
			out[i] = bpf.Jump{Skip: uint32(len(out) - 1 - i)}
		}
	}
	return out
}

// found stands for a jump to the end of the search.
const found = ^uint32(0)

// search jumps to found if the accumulator is one of the sorted keys, and drops else.
func search(keys []uint32) []bpf.Instruction {
	const leaf = 4
	if len(keys) > leaf {
		middle := len(keys) / 2
		low, high := search(keys[:middle]), search(keys[middle:])
		out := []bpf.Instruction{
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: keys[middle], SkipFalse: 1},
			bpf.Jump{Skip: uint32(len(low))},
		}
		return append(append(out, low...), high...)
	}
	var out []bpf.Instruction
	for _, key := range keys {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: key, SkipFalse: 1}, bpf.Jump{Skip: found})
	}
	return append(out, bpf.RetConstant{Val: 0})
}

// The factors of a multiplicative hash; odd, with bits everywhere.
const factor1, factor2, factor3 = 0x9e3779b1, 0x85ebca77, 0xc2b2ae3d

// sample drops what is not in the share: whose hash is not below it.
func (f Filter) sample() []bpf.Instruction {
	out := []bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegA, Val: 0}}
	for slot, factor := range []uint32{srcSlot: factor1, dstSlot: factor2, portsSlot: factor3} {
		out = append(out,
			bpf.LoadScratch{Dst: bpf.RegX, N: slot}, bpf.ALUOpX{Op: bpf.ALUOpXor}, bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: factor},
			bpf.TAX{}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 15}, bpf.ALUOpX{Op: bpf.ALUOpXor},
		)
	}
	return append(out,
		bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: factor1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 12},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: f.Share, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	)
}

// low are the last 32 bits of an address.
func low(ip netip.Addr) uint32 {
	b := ip.As16()
	return binary.BigEndian.Uint32(b[12:])
}
