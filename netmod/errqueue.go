// SPDX-License-Identifier: Apache-2.0

// The error queue: what recvmsg(2) gives for MSG_ERRQUEUE.

package netmod

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/intercept"
	"umrun/stacks"
)

// errorsMax bounds the error queue of a socket, in entries: about as many as fit the
// kernel's default receive buffer.
const errorsMax = 256

// hear takes what the stack says of datagrams that were sent.
func (s *packet) hear() {
	r, ok := s.ep.(stacks.Reporter)
	if !ok {
		return
	}
	pending, queue := r.TakeReports()
	if pending != 0 {
		s.soErr, s.quiet, s.unshown = pending, false, true
	}
	for _, e := range queue {
		s.queueError(e)
	}
}

// queueError appends to the error queue, unless it is full.
func (s *packet) queueError(e stacks.Report) {
	if len(s.errors) < errorsMax {
		s.errors = append(s.errors, e)
		s.unshown = true
	}
}

// ofICMP tells whether an entry stands for a pending error too
// (net/core/skbuff.c:is_icmp_err_skb).
func ofICMP(e stacks.Report) bool {
	return e.Origin == unix.SO_EE_ORIGIN_ICMP || e.Origin == unix.SO_EE_ORIGIN_ICMP6
}

// recvError receives the first entry of the error queue. d is a duplicate of the
// placeholder.
func (s *packet) recvError(c *intercept.Call, d int, x *transfer) (int, error) {
	if s.gone {
		return 0, unix.EBADF
	}
	s.hear()
	s.clearError(d)
	defer s.showErrors()
	if len(s.errors) == 0 {
		return 0, unix.EAGAIN
	}
	e := s.errors[0]
	s.errors = s.errors[1:]
	// net/core/skbuff.c:sock_dequeue_err_skb: the next one is pending then.
	switch {
	case len(s.errors) > 0 && ofICMP(s.errors[0]):
		s.soErr, s.quiet = s.errors[0].Errno, false
	case ofICMP(e):
		s.soErr = 0
	}
	in := incoming{size: len(e.Payload), flags: unix.MSG_ERRQUEUE}
	if e.Dst.IsValid() {
		in.name = encodeSockaddr(s.family, e.Dst)
	}
	e.Msg.Peer = e.Dst
	want := s.want
	switch {
	case e.Origin == unix.SO_EE_ORIGIN_TIMESTAMPING:
		want &= wantStamps
		if s.stamps.flags&unix.SOF_TIMESTAMPING_SOFTWARE != 0 {
			want |= wantTimestamping
		}
	case !ofICMP(e):
		want &= wantStamps &^ wantTimestamping
	}
	in.control = want.encode(s, e.Msg)
	in.control = append(in.control, extendedError(s.family, e)...)
	x.flags &^= unix.MSG_TRUNC // it returns what was copied
	return s.deliver(c, x, e.Payload, in)
}

// extendedError is the control message IP_RECVERR: struct sock_extended_err and the
// offender's address (net/ipv4/ip_sockglue.c:ip_recv_error).
func extendedError(family int, e stacks.Report) []byte {
	b := make([]byte, 16)
	native.PutUint32(b, uint32(e.Errno))
	b[4], b[5], b[6] = e.Origin, e.Type, e.Code
	native.PutUint32(b[8:], e.Info)
	native.PutUint32(b[12:], e.Data)
	offender := make([]byte, unix.SizeofSockaddrInet4)
	level, typ := unix.IPPROTO_IP, unix.IP_RECVERR
	if family == unix.AF_INET6 {
		offender = make([]byte, unix.SizeofSockaddrInet6)
		level, typ = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	if e.Offender.IsValid() {
		offender = encodeSockaddr(family, netip.AddrPortFrom(e.Offender, 0))
	}
	return appendControl(nil, level, typ, append(b, offender...))
}

// hear takes what the stack says of a connection that was being made.
func (s *stream) hear() {
	if r, ok := s.ep.(stacks.Reporter); ok {
		_, queue := r.TakeReports()
		s.errors = append(s.errors, queue[:min(len(queue), errorsMax-len(s.errors))]...)
	}
}

// recvError receives the first entry of the error queue of a TCP socket.
func (s *stream) recvError(c *intercept.Call, d *held, x *transfer) intercept.Action {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hear()
	if len(s.errors) == 0 {
		return intercept.Fail(unix.EAGAIN)
	}
	e := s.errors[0]
	s.errors = s.errors[1:]
	if s.state == failed && !s.broke { // sock_dequeue_err_skb: it is told by that
		s.takeError(d.N)
		if len(s.errors) > 0 {
			s.soErr = s.errors[0].Errno
		}
	}
	in := incoming{size: len(e.Payload), name: encodeSockaddr(s.family, e.Dst), flags: unix.MSG_ERRQUEUE,
		control: extendedError(s.family, e)}
	x.flags &^= unix.MSG_TRUNC // it returns what was copied
	n, err := x.deliver(c, e.Payload, in, false)
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return intercept.Return(int64(n))
}

// noteErrors empties the queue when it is turned off.
func (s *stream) noteErrors(level, name int, v []byte) {
	switch (optionKey{level, name}) {
	case optionKey{unix.IPPROTO_IP, unix.IP_RECVERR}, optionKey{unix.IPPROTO_IPV6, unix.IPV6_RECVERR}:
		if len(v) > 0 && v[0] == 0 {
			s.errors = nil
		}
	}
}

// noteErrors acts on an option that the error queue depends on. d is a duplicate of
// the placeholder.
func (s *packet) noteErrors(d, level, name int, v []byte) {
	on := len(v) > 0 && v[0] != 0
	switch (optionKey{level, name}) {
	case optionKey{unix.IPPROTO_IP, unix.IP_RECVERR}, optionKey{unix.IPPROTO_IPV6, unix.IPV6_RECVERR}:
		if !on { // net/ipv4/ip_sockglue.c: skb_errqueue_purge
			s.clearError(d)
			s.errors = nil
			s.showErrors()
		}
	case optionKey{unix.SOL_SOCKET, unix.SO_SELECT_ERR_QUEUE}:
		n := 0
		if on {
			n = 1
		}
		_ = unix.SetsockoptInt(d, level, name, n) // AF_UNIX has it too
	}
}
