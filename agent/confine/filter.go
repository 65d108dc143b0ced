// SPDX-License-Identifier: Apache-2.0

package confine

import (
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data. Arguments have 64 bits, of which both
// architectures store the low half first. All that are compared here are ints to
// the kernel, or flags in the low half.
const (
	numberOffset   = 0
	archOffset     = 4
	argumentOffset = 16
	argumentSize   = 8
)

// Answers of the filter.
const (
	allow  = unix.SECCOMP_RET_ALLOW
	denied = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	// absent makes the C library use an older call instead.
	absent = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

func ret(answer uint32) bpf.Instruction { return bpf.RetConstant{Val: answer} }

// check is a condition on one argument of a call: it has one of the values, after
// the mask.
type check struct {
	argument int
	mask     uint32
	values   []uint32
}

// is is a check that an argument has one of these values.
func is(argument int, values ...uint32) check { return check{argument, ^uint32(0), values} }

// masked is a check of some bits of an argument.
func masked(argument int, mask uint32, values ...uint32) check { return check{argument, mask, values} }

// rule allows a call if one of the alternatives holds: all checks of it.
type rule struct {
	call         int
	alternatives [][]check
}

// program is the filter. Calls with a rule are those that need a look at their
// arguments, plain calls don't. The kernel remembers which calls are plain, since
// 5.11, and doesn't run the filter for these.
func program(arch uint32, rules []rule, plain []int) ([]bpf.Instruction, error) {
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: archOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		ret(denied),
		bpf.LoadAbsolute{Off: numberOffset, Size: 4},
	}
	for _, r := range rules {
		body := r.instructions()
		if len(body) > 255 {
			return nil, fmt.Errorf("rule of system call %d: %d instructions, more than a jump passes over", r.call, len(body))
		}
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(r.call), SkipFalse: uint8(len(body))})
		out = append(out, body...)
	}
	for _, call := range plain {
		out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(call), SkipFalse: 1}, ret(allow))
	}
	// Its flags are in memory, where the filter can't look.
	out = append(out, bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SYS_CLONE3, SkipFalse: 1}, ret(absent))
	// A call that is newer than this list is one that a C library can do without.
	out = append(out, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: newestCall, SkipFalse: 1}, ret(absent), ret(denied))
	return out, nil
}

// instructions decide about a call whose number was recognized.
func (r rule) instructions() []bpf.Instruction {
	var out []bpf.Instruction
	for _, checks := range r.alternatives {
		body := []bpf.Instruction{ret(allow)}
		for _, c := range slices.Backward(checks) {
			body = append(c.instructions(len(body)), body...)
		}
		out = append(out, body...)
	}
	return append(out, ret(denied))
}

// instructions decide about the argument: what follows them is the rest of the
// alternative, of this length, which is passed over if the check fails.
func (c check) instructions(rest int) []bpf.Instruction {
	out := []bpf.Instruction{
		bpf.LoadAbsolute{Off: uint32(argumentOffset + argumentSize*c.argument), Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: c.mask},
	}
	for i, value := range c.values {
		jump := bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipTrue: uint8(len(c.values) - 1 - i)}
		if i == len(c.values)-1 {
			jump.SkipFalse = uint8(rest)
		}
		out = append(out, jump)
	}
	return out
}
