// SPDX-License-Identifier: Apache-2.0

// Connecting a TCP socket, and making it new after a failure.

package netstack

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// A connPhase is the state that Linux keeps in struct socket (SS_*), apart from
// the state of the connection: what connect(2) has told the program.
type connPhase int

const (
	phaseUnconnected connPhase = iota // SS_UNCONNECTED
	phaseConnecting                   // SS_CONNECTING: the outcome was not reported
	phaseConnected                    // SS_CONNECTED
)

// Connect starts or reports a connection, connect(2) on a non-blocking socket.
// The order of the cases is that of net/ipv4/af_inet.c:__inet_stream_connect.
func (s *stream) Connect(a netip.AddrPort) error {
	if err := s.down(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !a.IsValid() {
		return s.disconnectLocked()
	}
	switch s.phase {
	case phaseConnected:
		return unix.EISCONN
	case phaseConnecting:
		return s.connectResultLocked()
	}
	switch s.state() {
	case tcp.StateInitial, tcp.StateBound:
	case tcp.StateListen:
		return unix.EISCONN
	default:
		if err := s.renewLocked(); err != nil {
			return err
		}
	}
	f, err := full(s.family, a)
	if err != nil {
		return err
	}
	if s.family == unix.AF_INET6 && a.Addr().Is4() {
		return unix.EAFNOSUPPORT
	}
	if to := a.Addr().Unmap(); !to.IsMulticast() {
		if err := s.connectScope(&f, to); err != nil {
			return err
		}
	}
	if to := a.Addr().Unmap(); to.IsMulticast() || s.st.broadcast(f) {
		return unix.ENETUNREACH // net/ipv4/tcp_ipv4.c:tcp_v4_connect
	}
	v, err := s.steer(&f, &noMessage, true)
	if err != nil {
		return err
	}
	if to := a.Addr().Unmap(); to.Is4() && to.IsLoopback() && to != firstLoopback && s.state() == tcp.StateInitial {
		from, err := full(s.family, netip.AddrPortFrom(firstLoopback, 0))
		if err != nil {
			return err
		}
		if err := s.endpoint().Bind(from); err != nil {
			return connectErrno(err)
		}
	}
	s.st.early.begin()
	defer s.st.early.end()
	var gerr tcpip.Error
	s.st.by(v, func() { gerr = s.endpoint().Connect(f) })
	if _, ok := gerr.(*tcpip.ErrConnectStarted); gerr != nil && !ok {
		if e := connectErrno(gerr); e != unix.ENETUNREACH {
			return e
		}
		return s.noRoute(f)
	}
	s.phase, s.errTaken, s.err = phaseConnecting, false, 0
	s.countLocked()
	if s.counted != nil {
		s.st.urgent.clear(s.counted.id)
	}
	s.hearEarlyLocked()
	s.limitHandshakeLocked()
	return unix.EINPROGRESS
}

// broadcast tells whether f is a broadcast address of the network that it is
// routed to.
func (s *Stack) broadcast(f tcpip.FullAddress) bool {
	a := addrOf(unix.AF_INET, f.Addr, 0).Unmap()
	if !a.Is4() || a.IsUnspecified() || a.As4()[3]&3 != 3 {
		return false // the longest prefix with such an address leaves two bits
	}
	r, err := s.gv.FindRoute(f.NIC, tcpip.Address{}, gvAddr(a), protoOf(a), false)
	if err != nil {
		return false // connecting will say so
	}
	defer r.Release()
	return r.IsOutboundBroadcast()
}

// limitHandshakeLocked gives up a connection attempt when TCP_SYNCNT or
// TCP_USER_TIMEOUT say so; gVisor knows neither of them during the handshake,
// and retransmits the SYN six times, after 1, 2, 4... seconds.
//
// +checklocks:s.mu
func (s *stream) limitHandshakeLocked() {
	const gvisorRetries = 6
	ep := s.endpoint()
	var limit time.Duration
	if n, err := ep.GetSockOptInt(tcpip.TCPSynCountOption); err == nil && n < gvisorRetries {
		limit = (1<<(n+1) - 1) * time.Second
	}
	var user tcpip.TCPUserTimeoutOption
	if err := ep.GetSockOpt(&user); err == nil && user > 0 {
		// Linux looks at it when the first SYN is due again, after a second.
		if u := max(time.Duration(user), time.Second); limit == 0 || u < limit {
			limit = u
		}
	}
	if limit == 0 {
		return
	}
	s.giveUp = time.AfterFunc(limit, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed.Load() || s.st.closed.Load() || s.endpoint() != ep {
			return
		}
		switch s.state() {
		case tcp.StateConnecting, tcp.StateSynSent, tcp.StateSynRecv:
			s.err, s.errTaken = unix.ETIMEDOUT, true
			ep.Close() // wakes the watchers
		}
	})
}

// stopTimerLocked ends limitHandshakeLocked's timer.
//
// +checklocks:s.mu
func (s *stream) stopTimerLocked() {
	if s.giveUp != nil {
		s.giveUp.Stop()
		s.giveUp = nil
	}
}

// connectResultLocked answers a connect(2) that follows the first one.
//
// +checklocks:s.mu
func (s *stream) connectResultLocked() error {
	switch st := s.state(); {
	case st == tcp.StateConnecting || st == tcp.StateSynSent || st == tcp.StateSynRecv:
		return unix.EALREADY
	case st == tcp.StateError || st == tcp.StateClose || st == tcp.StateInitial:
		err := s.takeErrorLocked()
		if err == 0 {
			err = unix.ECONNABORTED // SO_ERROR has told the cause already
		}
		if e := s.renewLocked(); e != nil {
			return e
		}
		return err
	}
	s.phase = phaseConnected
	s.stopTimerLocked()
	return nil
}

// disconnectLocked is connect(2) to AF_UNSPEC: tcp_disconnect of
// net/ipv4/tcp.c, with the error that it leaves on a living connection.
//
// +checklocks:s.mu
func (s *stream) disconnectLocked() error {
	left := unix.ECONNRESET
	switch s.state() {
	case tcp.StateInitial, tcp.StateBound, tcp.StateListen, tcp.StateClose, tcp.StateError:
		left = 0
	}
	s.endpoint().Abort()
	if err := s.renewLocked(); err != nil {
		return err
	}
	s.err = left
	return nil
}

// renewLocked replaces a dead endpoint, as tcp_disconnect does with the socket:
// options and an explicit name stay.
//
// +checklocks:s.mu
func (s *stream) renewLocked() error {
	ep, err := s.newEndpoint()
	if err != nil {
		return err
	}
	s.stopTimerLocked()
	s.uncountLocked()
	old := s.ep.Swap(&epBox{ep})
	old.Close()
	s.phase, s.errTaken, s.err, s.rdShut = phaseUnconnected, false, 0, false
	s.opts.replay(&s.sock, ep)
	s.corkLocked()
	if s.bound.IsValid() {
		f, err := full(s.family, s.bound)
		if err != nil {
			return err
		}
		if err := ep.Bind(f); err != nil {
			s.st.log.Debug("bind again", "addr", s.bound, "err", err.String())
		}
	}
	return nil
}
