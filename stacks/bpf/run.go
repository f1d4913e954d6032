// SPDX-License-Identifier: Apache-2.0

// Running a program on a packet.

package bpf

import (
	"encoding/binary"
	"math/rand/v2"

	"golang.org/x/sys/unix"
)

// Where loads leave the packet's bytes (linux/filter.h: SKF_AD_OFF, SKF_NET_OFF,
// SKF_LL_OFF), as unsigned numbers.
const (
	adOff  = 0xfffff000
	netOff = 0xfff00000
	llOff  = 0xffe00000
)

// Numbers of what SKF_AD_OFF tells; vlan_tpid is the last one.
const (
	adProtocol = 4 * iota
	adPktType
	adIfIndex
	adNLAttr
	adNLAttrNest
	adMark
	adQueue
	adHatype
	adRxHash
	adCPU
	adXorX
	adVLANTag
	adVLANPresent
	adPayOffset
	adRandom
	adVLANTPID
)

// nlaTypeMask is NLA_TYPE_MASK of linux/netlink.h.
const nlaTypeMask = 0x3fff

// ancillary tells whether the kernel knows a number from SKF_AD_OFF on.
func ancillary(k uint32) bool {
	n := k - adOff
	return n <= adVLANTPID && n%4 == 0
}

// A Packet is what a program sees.
type Packet struct {
	Data []byte // where offset 0 of the socket's kind is
	Net  []byte // from the network header on; nil: loads from there fail
	Link []byte // from the link header on, likewise

	Proto   uint16 // EtherType, host byte order
	Type    uint8  // PACKET_HOST and so on of packet(7)
	IfIndex int
	HAType  uint16 // ARPHRD_*
	PayOff  int    // of the payload behind the transport header, from Data; 0 unknown
}

// Run returns how many bytes of the packet are to be kept; 0 drops it. A number above
// the length keeps all.
func (p *Program) Run(pkt *Packet) uint32 {
	var a, x uint32
	var mem [unix.BPF_MEMWORDS]uint32
	for pc := 0; ; pc++ {
		in := p.insns[pc]
		switch in.code & 7 {
		case unix.BPF_RET:
			if in.code == retA {
				return a
			}
			return in.k
		case unix.BPF_LD, unix.BPF_LDX:
			v, ok := pkt.value(in, a, x, &mem)
			switch {
			case !ok:
				return 0
			case in.code&7 == unix.BPF_LD:
				a = v
			default:
				x = v
			}
		case unix.BPF_ST:
			mem[in.k] = a
		case unix.BPF_STX:
			mem[in.k] = x
		case unix.BPF_ALU:
			v := in.k
			if in.code&unix.BPF_X != 0 {
				v = x
			}
			var ok bool
			if a, ok = calculate(in.code&0xf0, a, v); !ok {
				return 0
			}
		case unix.BPF_JMP:
			v := in.k
			if in.code&unix.BPF_X != 0 {
				v = x
			}
			pc += int(in.jump(a, v))
		case unix.BPF_MISC:
			if in.code == tax {
				x = a
			} else {
				a = x
			}
		}
	}
}

// calculate is an arithmetic instruction; false for a division by zero.
func calculate(op uint16, a, v uint32) (uint32, bool) {
	switch op {
	case unix.BPF_ADD:
		return a + v, true
	case unix.BPF_SUB:
		return a - v, true
	case unix.BPF_MUL:
		return a * v, true
	case unix.BPF_DIV:
		if v == 0 {
			return 0, false
		}
		return a / v, true
	case opMod:
		if v == 0 {
			return 0, false
		}
		return a % v, true
	case unix.BPF_AND:
		return a & v, true
	case unix.BPF_OR:
		return a | v, true
	case opXor:
		return a ^ v, true
	case unix.BPF_LSH:
		return a << (v & 31), true
	case unix.BPF_RSH:
		return a >> (v & 31), true
	}
	return -a, true // BPF_NEG
}

// jump returns how many instructions are skipped.
func (in insn) jump(a, v uint32) uint32 {
	yes := false
	switch in.code & 0xf0 {
	case unix.BPF_JA:
		return in.k
	case unix.BPF_JEQ:
		yes = a == v
	case unix.BPF_JGT:
		yes = a > v
	case unix.BPF_JGE:
		yes = a >= v
	case unix.BPF_JSET:
		yes = a&v != 0
	}
	if yes {
		return uint32(in.jt)
	}
	return uint32(in.jf)
}

// value is what a load loads.
func (pkt *Packet) value(in insn, a, x uint32, mem *[unix.BPF_MEMWORDS]uint32) (uint32, bool) {
	size := 4
	switch in.code & 0x18 {
	case unix.BPF_H:
		size = 2
	case unix.BPF_B:
		size = 1
	}
	switch in.code & 0xe0 {
	case unix.BPF_IMM:
		return in.k, true
	case unix.BPF_MEM:
		return mem[in.k], true
	case unix.BPF_LEN:
		return uint32(len(pkt.Data)), true
	case unix.BPF_IND:
		return pkt.load(x+in.k, size)
	case unix.BPF_MSH:
		v, ok := pkt.load(in.k, 1)
		return v & 0xf * 4, ok
	}
	if in.k >= adOff {
		return pkt.about(in.k-adOff, a, x)
	}
	return pkt.load(in.k, size)
}

// load reads size bytes in network byte order.
func (pkt *Packet) load(at uint32, size int) (uint32, bool) {
	b := pkt.Data
	switch {
	case at >= netOff:
		b, at = pkt.Net, at-netOff
	case at >= llOff:
		b, at = pkt.Link, at-llOff
	}
	if uint64(at)+uint64(size) > uint64(len(b)) {
		return 0, false
	}
	b = b[at:]
	switch size {
	case 1:
		return uint32(b[0]), true
	case 2:
		return uint32(binary.BigEndian.Uint16(b)), true
	}
	return binary.BigEndian.Uint32(b), true
}

// about is a load from SKF_AD_OFF on.
func (pkt *Packet) about(n, a, x uint32) (uint32, bool) {
	switch n {
	case adProtocol:
		return uint32(pkt.Proto), true
	case adPktType:
		return uint32(pkt.Type), true
	case adIfIndex:
		return uint32(pkt.IfIndex), pkt.IfIndex != 0
	case adHatype:
		return uint32(pkt.HAType), pkt.IfIndex != 0
	case adNLAttr:
		return netlinkAttr(pkt.Data, a, x), true
	case adNLAttrNest:
		return nestedAttr(pkt.Data, a, x), true
	case adXorX:
		return a ^ x, true
	case adPayOffset:
		return uint32(pkt.PayOff), true
	case adRandom:
		return rand.Uint32(), true
	}
	return 0, true // no mark, queue, hash or VLAN tag, and one CPU
}

// netlinkAttr finds an attribute from offset at on and returns its offset, 0 for none
// (filter.c:bpf_skb_get_nlattr).
func netlinkAttr(b []byte, at, typ uint32) uint32 {
	for uint64(at)+unix.SizeofNlAttr <= uint64(len(b)) {
		n := uint32(binary.NativeEndian.Uint16(b[at:]))
		if n < unix.SizeofNlAttr || uint64(at)+uint64(n) > uint64(len(b)) {
			return 0
		}
		if uint32(binary.NativeEndian.Uint16(b[at+2:]))&nlaTypeMask == typ {
			return at
		}
		at += (n + 3) &^ 3
	}
	return 0
}

// nestedAttr finds an attribute within the one at offset at.
func nestedAttr(b []byte, at, typ uint32) uint32 {
	if uint64(at)+unix.SizeofNlAttr > uint64(len(b)) {
		return 0
	}
	n := uint32(binary.NativeEndian.Uint16(b[at:]))
	if n < unix.SizeofNlAttr || uint64(at)+uint64(n) > uint64(len(b)) {
		return 0
	}
	return netlinkAttr(b[:at+n], at+unix.SizeofNlAttr, typ)
}
