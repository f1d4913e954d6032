// SPDX-License-Identifier: Apache-2.0

// Datagrams that are written piece by piece: MSG_MORE and UDP_CORK, udp(7).

package netmod

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A cork is a datagram of a socket that is not complete. It goes where its first
// piece said; what later pieces say is not looked at (net/ipv4/udp.c:udp_sendmsg).
type cork struct {
	on   bool // UDP_CORK
	held bool // there is one, perhaps without a byte yet
	data []byte
	msg  stacks.Message
	dst  netip.AddrPort // as msg.Peer, or the connected peer
}

// corked tells whether a piece with the given flags completes no datagram of its own.
func (s *packet) corked(flags int) bool {
	return s.isUDP() && (s.cork.held || s.cork.on || flags&unix.MSG_MORE != 0)
}

// addPiece adds to the datagram, and sends it if no more is to come. One that grows
// too long is thrown away, EMSGSIZE.
func (s *packet) addPiece(p []byte, msg stacks.Message, dst netip.AddrPort, flags int) error {
	k := &s.cork
	if !k.held {
		k.held, k.msg, k.dst = true, msg, dst
	}
	if len(k.data)+len(p) > s.payloadMax(k.dst) {
		*k = cork{on: k.on}
		return unix.EMSGSIZE
	}
	k.data = append(k.data, p...)
	if k.on || flags&unix.MSG_MORE != 0 {
		return nil
	}
	return s.uncork()
}

// uncork sends what there is.
func (s *packet) uncork() error {
	k := s.cork
	s.cork = cork{on: k.on}
	if !k.held {
		return nil
	}
	return s.sendComplete(k.data, k.msg, k.dst)
}

// sendComplete sends a datagram to the stack or the DNS stub.
func (s *packet) sendComplete(p []byte, msg stacks.Message, dst netip.AddrPort) error {
	if dst.IsValid() && s.isUDP() && s.m.stub.owns(dst) {
		s.m.stub.ask(s, p, dst)
		return nil
	}
	if err := s.pkt.SendMsg(p, msg); err != nil {
		return err
	}
	s.stampSent(p, dst)
	return nil
}

// noteCork acts on UDP_CORK, which the stack has accepted.
func (s *packet) noteCork(level, name int, v []byte) {
	if level != unix.IPPROTO_UDP || name != unix.UDP_CORK || len(v) < 4 {
		return
	}
	if s.cork.on = native.Uint32(v) != 0; !s.cork.on {
		_ = s.uncork() // nobody is told (net/ipv4/udp.c:udp_lib_setsockopt)
	}
}
