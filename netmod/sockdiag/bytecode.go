// SPDX-License-Identifier: Apache-2.0

// INET_DIAG_REQ_BYTECODE: the filter programs of ss.

package sockdiag

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Operations, linux/inet_diag.h. Each is struct inet_diag_bc_op: the operation,
// how many bytes to go on when it holds, and how many (16 bits) when not.
const (
	opNop = iota
	opJmp // never holds
	opSrcGE
	opSrcLE
	opDstGE
	opDstLE
	opAuto // the port was picked by the kernel: not known here, never holds
	opSrcCond
	opDstCond
	opDev
	opMark
	opSrcEq
	opDstEq
	opCgroup
)

const (
	opLen   = 4 // struct inet_diag_bc_op
	condLen = 8 // struct inet_diag_hostcond without the address
)

// A program is a filter as it came. The empty one accepts all.
type program []byte

func (p program) yes() int { return int(p[1]) }
func (p program) no() int  { return int(binary.NativeEndian.Uint16(p[2:])) }

// valid is inet_diag_bc_audit: every operation is whole, and each jump goes
// forward, to an operation or just past the end (or, to reject, 4 bytes beyond).
func (p program) valid() bool {
	if len(p) == 0 {
		return false
	}
	starts := make(map[int]bool)
	for rest := p; len(rest) > 0; {
		if len(rest) < opLen {
			return false
		}
		least := opLen
		switch rest[0] {
		case opSrcGE, opSrcLE, opDstGE, opDstLE, opSrcEq, opDstEq:
			least += opLen
		case opSrcCond, opDstCond:
			if least += condLen; len(rest) < least {
				return false
			}
			bits, size := int(rest[5]), 0
			switch rest[4] {
			case unix.AF_UNSPEC:
			case unix.AF_INET:
				size = 4
			case unix.AF_INET6:
				size = 16
			default:
				return false
			}
			if bits > 8*size {
				return false
			}
			least += size
		case opDev:
			least += 4
		case opAuto, opJmp, opNop:
		default: // marks take CAP_NET_ADMIN
			return false
		}
		starts[len(p)-len(rest)] = true
		yes, no := rest.yes(), rest.no()
		if len(rest) < least || yes < least || yes > len(rest) || yes%4 != 0 {
			return false
		}
		if rest[0] != opNop && (no < opLen || no > len(rest)+4 || no%4 != 0) {
			return false
		}
		rest = rest[yes:]
	}
	// A "no" must lead to where some way of "yes" passes (valid_cc).
	for at := range starts {
		if op := p[at:]; op[0] != opNop {
			if to := at + op.no(); to < len(p) && !starts[to] {
				return false
			}
		}
	}
	return true
}

// accepts runs the valid program on a socket: inet_diag_bc_run.
func (p program) accepts(s *Socket) bool {
	rest := p
	for len(rest) > 0 {
		next := rest.yes()
		if !rest.holds(s) {
			next = rest.no()
		}
		if next > len(rest) {
			return false
		}
		rest = rest[next:]
	}
	return true
}

// holds tells whether the first operation holds.
func (p program) holds(s *Socket) bool {
	src, dst := s.Local.Port(), s.Remote.Port()
	port := func() uint16 { return binary.NativeEndian.Uint16(p[opLen+2:]) }
	switch p[0] {
	case opNop:
		return true
	case opSrcGE:
		return src >= port()
	case opSrcLE:
		return src <= port()
	case opSrcEq:
		return src == port()
	case opDstGE:
		return dst >= port()
	case opDstLE:
		return dst <= port()
	case opDstEq:
		return dst == port()
	case opSrcCond:
		return p[opLen:].host(s.Local, s.Family)
	case opDstCond:
		return p[opLen:].host(s.Remote, s.Family)
	case opDev:
		return int(binary.NativeEndian.Uint32(p[opLen:])) == s.IfIndex
	}
	return false
}

// host compares with a struct inet_diag_hostcond: family, bits of the prefix, two
// bytes of padding, port or -1, address.
func (p program) host(a netip.AddrPort, family int) bool {
	if port := int32(binary.NativeEndian.Uint32(p[4:])); port != -1 && port != int32(a.Port()) {
		return false
	}
	bits := int(p[1])
	if !a.IsValid() { // no peer is the wildcard
		a = netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
		if family == unix.AF_INET {
			a = netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
		}
	}
	var want netip.Addr
	switch p[0] {
	case unix.AF_UNSPEC:
		return true
	case unix.AF_INET:
		want = netip.AddrFrom4([4]byte(p[condLen:]))
		if family == unix.AF_INET6 && !a.Addr().Is4In6() {
			return false
		}
	case unix.AF_INET6:
		if family != unix.AF_INET6 {
			return false
		}
		want = netip.AddrFrom16([16]byte(p[condLen:]))
	}
	got := a.Addr().WithZone("")
	if want.Is4() {
		got = got.Unmap()
	}
	if bits == 0 {
		return true
	}
	prefix, err := want.Prefix(bits)
	return err == nil && prefix.Contains(got)
}
