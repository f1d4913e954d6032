// SPDX-License-Identifier: Apache-2.0

// What streams and packet sockets have in common.

package netstack

import (
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"umrun/stacks"
)

// A sock is the common part of a socket.
type sock struct {
	st     *Stack
	family int        // AF_INET or AF_INET6
	typ    int        // SOCK_STREAM, SOCK_DGRAM or SOCK_RAW
	proto  int        // IPPROTO_*, never 0
	raw    *rawSocket // what it is part of; nil: no raw socket

	// wq outlives ep: a socket that is connected again after a failure gets a
	// new endpoint, and its watchers stay where they are.
	wq *waiter.Queue
	ep atomic.Pointer[epBox]

	closed  atomic.Bool
	reports *reports      // what ICMP says
	segment atomic.Int32  // UDP_SEGMENT
	uid     atomic.Uint32 // of who made it

	mu   sync.Mutex
	err  unix.Errno // what SO_ERROR will report; +checklocks:mu
	opts optionLog  // what SetOption did, for new endpoints; +checklocks:mu
	vals optionVals // values that only we keep; +checklocks:mu

	groups []membership // joined; +checklocks:mu
}

// me is the user who makes sockets, unless SetOwner says otherwise.
var me = uint32(os.Getuid())

// An epBox makes an interface fit an atomic pointer.
type epBox struct{ tcpip.Endpoint }

// transportOf returns gVisor's number of a protocol.
func transportOf(proto int) tcpip.TransportProtocolNumber {
	switch proto {
	case unix.IPPROTO_TCP:
		return tcp.ProtocolNumber
	case unix.IPPROTO_ICMP:
		return icmp.ProtocolNumber4
	case unix.IPPROTO_ICMPV6:
		return icmp.ProtocolNumber6
	}
	return udp.ProtocolNumber
}

// newEndpoint makes a fresh endpoint on the socket's queue.
func (s *sock) newEndpoint() (tcpip.Endpoint, error) {
	net := header.IPv4ProtocolNumber
	if s.family == unix.AF_INET6 {
		net = header.IPv6ProtocolNumber
	}
	ep, err := s.st.gv.NewEndpoint(transportOf(s.proto), net, s.wq)
	if err != nil {
		return nil, errno(err)
	}
	ep.SetOwner(&owner{s})
	return ep, nil
}

func (s *sock) endpoint() tcpip.Endpoint { return s.ep.Load().Endpoint }

// down returns ENETDOWN once the stack is closed and EBADF once the socket is.
func (s *sock) down() error {
	switch {
	case s.st.closed.Load():
		return unix.ENETDOWN
	case s.closed.Load():
		return unix.EBADF
	}
	return nil
}

// SetOwner says who made the socket; see [stacks.Owned].
func (s *sock) SetOwner(uid uint32) { s.uid.Store(uid) }

// localName returns what getsockname(2) reports.
func (s *sock) localName() netip.AddrPort {
	f, err := s.endpoint().GetLocalAddress()
	if err != nil {
		f = tcpip.FullAddress{}
	}
	if f.NIC == 0 {
		f.NIC = s.device()
	}
	return withZone(addrPort(s.family, f), f.NIC)
}

// remoteName returns what getpeername(2) reports, the zero value for ENOTCONN.
func (s *sock) remoteName() netip.AddrPort {
	f, err := s.endpoint().GetRemoteAddress()
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(s.family, f)
}

// Names returns the local and the remote address.
func (s *sock) Names() (local, remote netip.AddrPort) {
	return s.localName(), s.remoteName()
}

// Watch calls f when one of the events may have begun to hold.
func (s *sock) Watch(mask stacks.Events, f func(stacks.Events)) (stop func()) {
	// poll(2): POLLERR and POLLHUP need not be asked for.
	m := waiter.EventErr | waiter.EventHUp
	if mask&(unix.POLLIN|unix.POLLRDHUP) != 0 {
		m |= waiter.ReadableEvents | waiter.EventRdHUp
	}
	if mask&unix.POLLOUT != 0 {
		m |= waiter.WritableEvents
	}
	if mask&unix.POLLPRI != 0 {
		m |= waiter.EventPri
	}
	e := waiter.NewFunctionEntry(m, func(ev waiter.EventMask) { f(events(ev)) })
	s.wq.EventRegister(&e)
	var once sync.Once
	return func() { once.Do(func() { s.wq.EventUnregister(&e) }) }
}

// events converts gVisor's bits, which are those of poll(2), leaving out the
// bits that the contract does not have.
func events(ev waiter.EventMask) stacks.Events {
	return stacks.Events(ev) & (unix.POLLIN | unix.POLLOUT | unix.POLLPRI | unix.POLLERR | unix.POLLHUP | unix.POLLRDHUP)
}

// shutdownFlags converts how of shutdown(2).
func shutdownFlags(how int) (tcpip.ShutdownFlags, error) {
	switch how {
	case unix.SHUT_RD:
		return tcpip.ShutdownRead, nil
	case unix.SHUT_WR:
		return tcpip.ShutdownWrite, nil
	case unix.SHUT_RDWR:
		return tcpip.ShutdownRead | tcpip.ShutdownWrite, nil
	}
	return 0, unix.EINVAL
}
