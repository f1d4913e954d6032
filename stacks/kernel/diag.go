// SPDX-License-Identifier: Apache-2.0

// sock_diag(7): the sockets of the namespace, whoever has them.

package kernel

import (
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// sockDiagByFamily is the only message of sock_diag(7).
const sockDiagByFamily = 20

// Where things stand in struct inet_diag_msg. The bytes that the peer has not
// acknowledged are idiag_wqueue; the inode is 0 once the socket is closed.
const (
	diagLocalPort  = 4
	diagRemotePort = 6
	diagLocal      = 8
	diagRemote     = 24
	diagCookie     = 44
	diagUnacked    = 60
	diagInode      = 68
	diagLen        = 72
)

// sockets gives the struct inet_diag_msg of each socket to f; states is a bit for each
// state of net/tcp_states.h.
func (s *Stack) sockets(family, proto uint8, states uint32, f func(m []byte)) {
	q := make([]byte, 56) // struct inet_diag_req_v2
	q[0], q[1] = family, proto
	native.PutUint32(q[4:], states)
	ms, err := s.diag.execute(sockDiagByFamily, netlink.Dump, q)
	if err != nil {
		s.log.Debug("sockets of the namespace", "err", err)
		return
	}
	for _, m := range ms {
		if m.Header.Type == sockDiagByFamily && len(m.Data) >= diagLen {
			f(m.Data)
		}
	}
}

// Held lists the TCP and UDP sockets of the namespace, see [stacks.Keeper].
func (s *Stack) Held() (all []stacks.Held) {
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			s.sockets(family, proto, ^uint32(0), func(m []byte) {
				at := func(addr, port int) netip.AddrPort {
					a := netip.AddrFrom16([16]byte(m[addr:])).Unmap()
					if family == unix.AF_INET {
						a = netip.AddrFrom4([4]byte(m[addr:]))
					}
					return netip.AddrPortFrom(a, uint16(m[port])<<8|uint16(m[port+1]))
				}
				all = append(all, stacks.Held{
					Proto: int(proto), Local: at(diagLocal, diagLocalPort), Remote: at(diagRemote, diagRemotePort),
					Cookie: native.Uint64(m[diagCookie:]), Inode: native.Uint32(m[diagInode:]),
				})
			})
		}
	}
	return all
}
