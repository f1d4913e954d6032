// SPDX-License-Identifier: Apache-2.0

// ICMP messages about connections that are being made: any of them ends the attempt,
// and goes to the error queue (net/ipv4/tcp_ipv4.c:tcp_v4_err, net/ipv6/tcp_ipv6.c:
// tcp_v6_err). gVisor knows some of those that say "unreachable", and keeps no queue.

package netstack

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// isConnecting tells whether a connection is being made.
func isConnecting(st tcp.EndpointState) bool {
	return st == tcp.StateConnecting || st == tcp.StateSynSent || st == tcp.StateSynRecv
}

// reportSYN tells the socket that connects what a message says about its SYN. It runs
// where the message arrived, before gVisor has seen it: the attempt ends elsewhere.
func (s *Stack) reportSYN(e icmpError, nic tcpip.NICID) {
	if e.mtu != 0 { // the next SYN is cut, or another way found
		return
	}
	// quote has made sure of eight bytes.
	src, dst := e.src.Addr(), e.dst.Addr()
	id := tcp.TCPEndpointID{
		LocalPort: binary.BigEndian.Uint16(e.body), LocalAddress: gvAddr(src),
		RemotePort: binary.BigEndian.Uint16(e.body[2:]), RemoteAddress: gvAddr(dst),
	}
	v, ok := s.queues.m.Load(id)
	if !ok {
		if v, ok = s.early.keep(&s.queues, earlyError{id, e, nic}); !ok {
			return
		}
	}
	if c := v.(*sendQueue); isConnecting(c.stream.state()) { // else it is soft
		c.stream.failSYN(c, e, nic)
	}
}

// failSYN ends the attempt that c counts with a message about its SYN.
func (s *stream) failSYN(c *sendQueue, e icmpError, nic tcpip.NICID) {
	if syn, ok := s.st.urgent.begun(c.id); ok && binary.BigEndian.Uint32(e.body[4:])-syn > 1 {
		return // whoever says so has not seen it
	}
	if e.src.Addr().Is4() || s.reports.recv6.Load() { // ip_icmp_error does not ask, ipv6_icmp_error does
		e.report.Dst = netip.AddrPortFrom(e.dst.Addr(), c.id.RemotePort)
		e.report.Payload = e.body
		r := e.reportTo(s.family, nic)
		s.reports.mu.Lock()
		s.reports.addLocked(r)
		s.reports.news.Store(true)
		s.reports.mu.Unlock()
	}
	s.st.tasks.start(func() { s.giveUpFor(c, e.report.Errno) })
}

// giveUpFor ends the attempt that c counts, unless it has ended.
func (s *stream) giveUpFor(c *sendQueue, why unix.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() || s.st.closed.Load() || s.counted != c || !isConnecting(s.state()) {
		return
	}
	s.err, s.errTaken = why, true
	s.endpoint().Close() // wakes the watchers
}
