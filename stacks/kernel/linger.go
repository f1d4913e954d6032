// SPDX-License-Identifier: Apache-2.0

// What is on its way when the program has ended.

package kernel

import (
	"golang.org/x/sys/unix"

	"umrun/stacks"
)

var _ stacks.Lingerer = (*Stack)(nil)

// TCP states, net/tcp_states.h.
const (
	tcpEstablished = 1
	tcpFinWait1    = 4
	tcpCloseWait   = 8
	tcpLastAck     = 9
	tcpClosing     = 11
)

// leaving are the states in which a connection may still have something to say.
const leaving = 1<<tcpEstablished | 1<<tcpFinWait1 | 1<<tcpCloseWait | 1<<tcpLastAck | 1<<tcpClosing

// Undelivered asks sock_diag(7) for connections that nobody has open any more and
// whose peers have not acknowledged everything, and the links for packets that wait to
// be taken. In a namespace that lives on without us nothing has to be waited for but what
// the kernel has not taken yet.
func (s *Stack) Undelivered() (bytes, waiting int) {
	for k := range s.rests.Range {
		if b, done := k.(*stream).Unacked(); !done {
			bytes += b
			waiting++
		}
	}
	if !s.private {
		return bytes, waiting
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for _, c := range s.connections(family) {
			if !c.open && c.unacked > 0 {
				bytes += c.unacked - 1
				waiting++
			}
		}
	}
	for _, d := range s.links {
		if d.waits() {
			waiting++
		}
		if l, ok := d.link.(stacks.Lingerer); ok {
			b, n := l.Undelivered()
			bytes, waiting = bytes+b, waiting+n
		}
	}
	return bytes, waiting
}

// A connection is what sock_diag(7) says of a TCP socket.
type connection struct {
	cookie  uint64 // SO_COOKIE
	unacked int    // bytes, of which a FIN is one
	open    bool   // somebody has a descriptor
}

// connections lists those that may still have something to say.
func (s *Stack) connections(family uint8) (all []connection) {
	s.sockets(family, unix.IPPROTO_TCP, leaving, func(m []byte) {
		all = append(all, connection{
			cookie:  native.Uint64(m[diagCookie:]),
			unacked: int(native.Uint32(m[diagUnacked:])),
			open:    native.Uint32(m[diagInode:]) != 0,
		})
	})
	return all
}

// leftBy returns what a closed socket has still to send, the FIN not counted; done says
// that there is nothing.
func (s *Stack) leftBy(family int, cookie uint64) (bytes int, done bool) {
	for _, c := range s.connections(uint8(family)) {
		switch {
		case c.cookie != cookie || c.unacked == 0:
		case c.open: // for the rest, see later: its FIN is still to come
			return c.unacked, false
		default:
			return c.unacked - 1, false
		}
	}
	return 0, true
}
