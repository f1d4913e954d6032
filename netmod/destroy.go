// SPDX-License-Identifier: Apache-2.0

// Sockets that somebody else ends: SOCK_DESTROY of sock_diag(7), ss -K.

package netmod

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// abort ends the socket with a cookie: its holder gets ECONNABORTED. ENOENT if there is
// none, EOPNOTSUPP if it has no state to end. The mutex of a netlink socket may be held.
func (m *Module) abort(cookie uint64) unix.Errno {
	m.mu.Lock()
	s := m.sockets[cookie]
	m.mu.Unlock()
	switch s := s.(type) {
	case *stream:
		return s.abort()
	case *packet:
		return s.abort()
	}
	return unix.ENOENT
}

// abort is net/ipv4/tcp.c:tcp_abort.
func (s *stream) abort() unix.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone:
		return unix.ENOENT
	case s.state == connected:
		s.reset(unix.ECONNABORTED)
	case s.state == connecting:
		s.tcp.Abort()
		s.connectFailed(unix.ECONNABORTED)
	case s.state == listening:
		s.closeListener()
		s.state, s.soErr = failed, unix.ECONNABORTED
	default:
		return unix.EOPNOTSUPP
	}
	return 0
}

// abort is net/ipv4/udp.c:udp_abort, and that of raw sockets.
func (s *packet) abort() unix.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.family != unix.AF_INET && s.family != unix.AF_INET6 {
		return unix.EOPNOTSUPP
	}
	if s.gone {
		return unix.ENOENT
	}
	s.settleLocked()
	if s.connected && !s.stubPeer.IsValid() {
		if err := s.ep.Connect(netip.AddrPort{}); err != nil {
			return unix.EOPNOTSUPP
		}
	}
	s.connected, s.stubPeer = false, netip.AddrPort{}
	s.soErr, s.quiet, s.unshown = unix.ECONNABORTED, false, true
	s.showErrors()
	s.m.pump.schedule(&s.job, nudge)
	return 0
}
