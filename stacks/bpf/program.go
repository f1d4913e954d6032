// SPDX-License-Identifier: Apache-2.0

// Programs: their encoding, and what the kernel accepts.

package bpf

import (
	"encoding/binary"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// MaxInsns is the most instructions that a program has (BPF_MAXINSNS).
const MaxInsns = 4096

// InsnLen is the size of struct sock_filter, bytes.
const InsnLen = 8

// An insn is a struct sock_filter (linux/filter.h).
type insn struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// A Program is a checked filter.
type Program struct {
	insns []insn
	raw   []byte
}

// Classes, sizes, modes and operations that unix has no names for together.
const (
	ldW, ldH, ldB = unix.BPF_LD | unix.BPF_W, unix.BPF_LD | unix.BPF_H, unix.BPF_LD | unix.BPF_B

	alu, jmp   = unix.BPF_ALU, unix.BPF_JMP
	opMod      = 0x90
	opXor      = 0xa0
	ofA        = 0x10 // BPF_A of BPF_RET
	st, stx    = unix.BPF_ST, unix.BPF_STX
	tax, txa   = unix.BPF_MISC | unix.BPF_TAX, unix.BPF_MISC | unix.BPF_TXA
	retK, retA = unix.BPF_RET | unix.BPF_K, unix.BPF_RET | ofA
)

// Parse checks a program as net/core/filter.c:bpf_check_classic does: raw is an array
// of struct sock_filter, which Parse copies. EINVAL for what the kernel refuses.
func Parse(raw []byte) (*Program, error) {
	n := len(raw) / InsnLen
	if n == 0 || n > MaxInsns || len(raw)%InsnLen != 0 {
		return nil, unix.EINVAL
	}
	p := &Program{insns: make([]insn, n), raw: slices.Clone(raw)}
	for i := range p.insns {
		b := raw[i*InsnLen:]
		p.insns[i] = insn{binary.NativeEndian.Uint16(b), b[2], b[3], binary.NativeEndian.Uint32(b[4:])}
	}
	for pc, in := range p.insns {
		if !known(in.code) || !p.sound(pc, in) {
			return nil, unix.EINVAL
		}
	}
	if last := p.insns[n-1].code; last != retK && last != retA {
		return nil, unix.EINVAL
	}
	if !p.storesFirst() {
		return nil, unix.EINVAL
	}
	return p, nil
}

// Bytes returns the program as it was given to Parse, for SO_GET_FILTER. The caller
// does not change it.
func (p *Program) Bytes() []byte { return p.raw }

// known lists the instructions there are (filter.c:chk_code_allowed).
func known(code uint16) bool {
	switch code {
	case alu | unix.BPF_NEG, tax, txa, retK, retA, st, stx, jmp | unix.BPF_JA,
		ldW | unix.BPF_ABS, ldH | unix.BPF_ABS, ldB | unix.BPF_ABS,
		ldW | unix.BPF_IND, ldH | unix.BPF_IND, ldB | unix.BPF_IND,
		ldW | unix.BPF_LEN, ldW | unix.BPF_IMM, ldW | unix.BPF_MEM,
		unix.BPF_LDX | unix.BPF_W | unix.BPF_LEN, unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH,
		unix.BPF_LDX | unix.BPF_W | unix.BPF_IMM, unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM:
		return true
	}
	switch code &^ unix.BPF_X { // either operand
	case alu | unix.BPF_ADD, alu | unix.BPF_SUB, alu | unix.BPF_MUL, alu | unix.BPF_DIV, alu | opMod,
		alu | unix.BPF_AND, alu | unix.BPF_OR, alu | opXor, alu | unix.BPF_LSH, alu | unix.BPF_RSH,
		jmp | unix.BPF_JEQ, jmp | unix.BPF_JGE, jmp | unix.BPF_JGT, jmp | unix.BPF_JSET:
		return true
	}
	return false
}

// sound judges the operands of one instruction.
func (p *Program) sound(pc int, in insn) bool {
	rest := uint32(len(p.insns) - pc - 1) // instructions that follow
	switch in.code {
	case alu | unix.BPF_DIV | unix.BPF_K, alu | opMod | unix.BPF_K:
		return in.k != 0
	case alu | unix.BPF_LSH | unix.BPF_K, alu | unix.BPF_RSH | unix.BPF_K:
		return in.k < 32
	case ldW | unix.BPF_MEM, unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM, st, stx:
		return in.k < unix.BPF_MEMWORDS
	case ldW | unix.BPF_ABS, ldH | unix.BPF_ABS, ldB | unix.BPF_ABS:
		return in.k < adOff || ancillary(in.k)
	case jmp | unix.BPF_JA:
		return in.k < rest
	}
	if in.code&7 == unix.BPF_JMP {
		return uint32(in.jt) < rest && uint32(in.jf) < rest
	}
	return true
}

// storesFirst tells whether every word of the scratch memory is stored before it is
// loaded, whatever way is taken (filter.c:check_load_and_stores). Jumps go forward
// only, so that one pass sees all ways to an instruction.
func (p *Program) storesFirst() bool {
	masks := make([]uint16, len(p.insns)) // words that are stored by then, by all ways
	for i := range masks {
		masks[i] = math.MaxUint16
	}
	valid := uint16(0)
	for pc, in := range p.insns {
		valid &= masks[pc]
		switch in.code {
		case st, stx:
			valid |= 1 << in.k
		case ldW | unix.BPF_MEM, unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM:
			if valid&(1<<in.k) == 0 {
				return false
			}
		case jmp | unix.BPF_JA:
			masks[pc+1+int(in.k)] &= valid
			valid = math.MaxUint16
		default:
			if in.code&7 == unix.BPF_JMP {
				masks[pc+1+int(in.jt)] &= valid
				masks[pc+1+int(in.jf)] &= valid
				valid = math.MaxUint16
			}
		}
	}
	return true
}
