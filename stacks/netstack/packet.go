// SPDX-License-Identifier: Apache-2.0

// UDP and ICMP echo sockets.

package netstack

import (
	"io"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"

	"umrun/stacks"
)

// Largest payloads of a datagram, bytes.
const (
	maxUDP4 = 65535 - header.IPv4MinimumSize - header.UDPMinimumSize
	maxUDP6 = 65535 - header.UDPMinimumSize
)

// A packetSocket is a UDP socket, or a "ping socket": one for ICMP echo, whose
// identifier is the local port (net/ipv4/ping.c).
type packetSocket struct {
	sock

	sending sync.RWMutex // see write; taken after mu is released

	// All below: +checklocks:mu
	bound  netip.AddrPort // what Bind was given, for new endpoints
	rdShut bool
	wrShut bool
}

var (
	_ stacks.PacketSocket = (*packetSocket)(nil)
	_ stacks.Reporter     = (*packetSocket)(nil)
)

func newPacket(st *Stack, family, proto int) (*packetSocket, error) {
	s := &packetSocket{sock: sock{st: st, family: family, typ: unix.SOCK_DGRAM, proto: proto, wq: &waiter.Queue{}, reports: new(reports)}}
	s.uid.Store(me)
	s.reports.strategy.Store(unix.IP_PMTUDISC_WANT)
	ep, err := s.newEndpoint()
	if err != nil {
		return nil, err
	}
	tellAll(ep)
	if proto != unix.IPPROTO_UDP { // net/ipv4/ping.c:ping_init_sock
		ep.SocketOptions().SetReuseAddress(true)
		ep.SocketOptions().SetV6Only(family == unix.AF_INET6)
		ep.SocketOptions().SetMulticastLoop(true)
	}
	s.ep.Store(&epBox{ep})
	return s, nil
}

// tellAll makes an endpoint keep all that a [stacks.Message] can say; which of
// it the program wants is netmod's business.
func tellAll(ep tcpip.Endpoint) {
	so := ep.SocketOptions()
	so.SetReceiveTTL(true)
	so.SetReceiveTOS(true)
	so.SetReceivePacketInfo(true)
	so.SetReceiveHopLimit(true)
	so.SetReceiveTClass(true)
	so.SetIPv6ReceivePacketInfo(true)
}

// Bind names the socket, bind(2).
func (s *packetSocket) Bind(a netip.AddrPort) error {
	if err := s.sock.Bind(a); err != nil {
		return err
	}
	s.enroll()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = s.localName()
	return nil
}

// Connect sets or dissolves the association with a peer.
func (s *packetSocket) Connect(a netip.AddrPort) error {
	if err := s.down(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.enroll()
	if !a.IsValid() {
		return s.disconnectLocked()
	}
	f, err := s.destination(a)
	if err != nil {
		return err
	}
	if err := s.connectScope(&f, a.Addr()); err != nil {
		return err
	}
	if f.NIC == 0 && !a.Addr().IsMulticast() {
		f.NIC = s.stickyIf(a.Addr()) // ip6_datagram_dst_update
	}
	v, err := s.steer(&f, &noMessage, true)
	if err != nil {
		return err
	}
	ep := s.endpoint()
	if dev := ep.SocketOptions().GetBindToDevice(); dev != 0 && a.Addr().Zone() != "" && f.NIC != tcpip.NICID(dev) {
		return unix.EINVAL // net/ipv6/datagram.c:__ip6_datagram_connect
	}
	if s.noGroups(f) {
		return unix.ENETUNREACH
	}
	if s.proto == unix.IPPROTO_UDP && !ep.SocketOptions().GetBroadcast() && s.st.broadcast(f) {
		// The port is chosen first (net/ipv4/af_inet.c:inet_dgram_connect).
		if s.localName().Port() == 0 {
			if err := ep.Bind(tcpip.FullAddress{}); err != nil {
				return connectErrno(err)
			}
		}
		return unix.EACCES
	}
	var gerr tcpip.Error
	s.st.by(v, func() { gerr = ep.Connect(f) })
	if gerr != nil {
		if e := connectErrno(gerr); e != unix.ENETUNREACH {
			return e
		}
		return s.noRoute(f)
	}
	return nil
}

// destination converts an address to send to. Echo requests to the address of a
// link are sent within that link: gVisor's loopback interface, the usual way to
// all own addresses, has those of links only for as long as a route is in use,
// and requests to such temporary addresses are left unanswered over IPv4.
func (s *packetSocket) destination(a netip.AddrPort) (tcpip.FullAddress, error) {
	f, err := full(s.family, a)
	if err == nil && s.family == unix.AF_INET6 && !a.Addr().Is4In6() && !a.Addr().IsUnspecified() && s.localName().Addr().Is4In6() {
		return f, unix.EAFNOSUPPORT // net/ipv6/ip6_output.c:ip6_dst_lookup_tail
	}
	if err == nil && s.proto == unix.IPPROTO_ICMP && f.NIC == 0 && f.Addr.Len() > 0 {
		f.NIC = s.st.gv.CheckLocalAddress(0, header.IPv4ProtocolNumber, f.Addr)
	}
	if err == nil && f.NIC == 0 && f.Addr.Len() == header.IPv4AddressSize {
		f.NIC = s.sourceInterface(f)
	}
	return f, err
}

// sourceInterface is the interface of a datagram to a group or to everyone, if the
// socket is bound to an address and names no interface: the one that has the
// address (net/ipv4/route.c:ip_route_output_key_hash_rcu, "special hack").
func (s *packetSocket) sourceInterface(to tcpip.FullAddress) tcpip.NICID {
	if !header.IsV4MulticastAddress(to.Addr) && to.Addr != header.IPv4Broadcast {
		return 0
	}
	ep := s.endpoint()
	var o tcpip.MulticastInterfaceOption
	if err := ep.GetSockOpt(&o); err != nil || o.NIC != 0 || ep.SocketOptions().GetBindToDevice() != 0 {
		return 0
	}
	local := s.localName().Addr().Unmap()
	if !local.Is4() || local.IsUnspecified() {
		return 0
	}
	return s.st.gv.CheckLocalAddress(0, header.IPv4ProtocolNumber, gvAddr(local))
}

// disconnectLocked is connect(2) to AF_UNSPEC. gVisor does it for UDP only; a
// ping socket gets a new endpoint, as it has no queue worth keeping.
//
// +checklocks:s.mu
func (s *packetSocket) disconnectLocked() error {
	if s.proto == unix.IPPROTO_UDP {
		if err := s.endpoint().Disconnect(); err != nil {
			return errno(err)
		}
		return nil
	}
	ep, err := s.newEndpoint()
	if err != nil {
		return err
	}
	tellAll(ep)
	old := s.ep.Swap(&epBox{ep})
	old.Close()
	s.opts.replay(&s.sock, ep)
	s.rejoin(ep)
	if s.bound.IsValid() {
		f, err := full(s.family, s.bound)
		if err != nil {
			return err
		}
		return bindErrno(ep.Bind(f))
	}
	return nil
}

// Names returns the local and the remote address. The port of a ping socket's
// peer is 0.
func (s *packetSocket) Names() (local, remote netip.AddrPort) {
	local = s.localName()
	f, err := s.endpoint().GetRemoteAddress()
	if err == nil && f.Addr.Len() > 0 {
		remote = addrPort(s.family, f)
	}
	return local, remote
}

// Shutdown is shutdown(2). Without a peer it takes effect all the same, and
// still reports ENOTCONN (net/ipv4/af_inet.c:inet_shutdown).
func (s *packetSocket) Shutdown(how int) error {
	flags, err := shutdownFlags(how)
	if err != nil {
		return err
	}
	if err := s.down(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rdShut = s.rdShut || flags&tcpip.ShutdownRead != 0
	s.wrShut = s.wrShut || flags&tcpip.ShutdownWrite != 0
	if err := s.endpoint().Shutdown(flags); err != nil {
		return errno(err)
	}
	return nil
}

// RecvMsg takes or shows the first datagram. After SHUT_RD the error is io.EOF
// where a blocking recv(2) would return 0.
func (s *packetSocket) RecvMsg(p []byte, peek bool) (n, size int, m stacks.Message, err error) {
	if err := s.down(); err != nil {
		return 0, 0, m, err
	}
	if e := s.takePending(); e != 0 {
		return 0, 0, m, e
	}
	for {
		w := cutWriter{p: p}
		r, gerr := s.endpoint().Read(&w, tcpip.ReadOptions{Peek: peek, NeedRemoteAddr: true})
		switch gerr.(type) {
		case nil:
		case *tcpip.ErrClosedForReceive:
			return 0, 0, m, io.EOF
		default:
			if noted(gerr) {
				continue
			}
			return 0, 0, m, errno(gerr)
		}
		m = s.message(&r)
		if s.hears(&m) {
			m.IfIndex = s.arrival(&m)
			return w.n, r.Total, m, nil
		}
		if peek { // look at the one behind it
			s.endpoint().Read(&cutWriter{}, tcpip.ReadOptions{})
		}
	}
}

// A cutWriter keeps what fits and swallows the rest, as a short recv(2) does.
type cutWriter struct {
	p []byte
	n int
}

func (w *cutWriter) Write(b []byte) (int, error) {
	w.n += copy(w.p[w.n:], b)
	return len(b), nil
}

// message says what came with a datagram.
func (s *packetSocket) message(r *tcpip.ReadResult) stacks.Message {
	c := &r.ControlMessages
	m := stacks.Message{Peer: addrPort(s.family, r.RemoteAddr), TTL: -1, TOS: -1}
	if c.HasTimestamp {
		m.Stamp = c.Timestamp.UnixNano()
	}
	if st, ok := s.endpoint().Stats().(*tcpip.TransportEndpointStats); ok {
		m.Dropped = uint32(st.ReceiveErrors.ReceiveBufferOverflow.Value())
	}
	switch {
	case c.HasTTL:
		m.TTL = int(c.TTL)
	case c.HasHopLimit:
		m.TTL = int(c.HopLimit)
	}
	switch {
	case c.HasTOS:
		m.TOS = int(c.TOS)
	case c.HasTClass:
		m.TOS = int(c.TClass)
	}
	switch {
	case c.HasIPPacketInfo:
		m.Local = addrOf(s.family, c.PacketInfo.DestinationAddr, c.PacketInfo.NIC)
		m.IfIndex = int(c.PacketInfo.NIC)
	case c.HasIPv6PacketInfo:
		m.Local = addrOf(s.family, c.IPv6PacketInfo.Addr, c.IPv6PacketInfo.NIC)
		m.IfIndex = int(c.IPv6PacketInfo.NIC)
	}
	return m
}

// Poll returns what poll(2) would, with the cases of
// net/core/datagram.c:datagram_poll.
func (s *packetSocket) Poll() stacks.Events {
	s.mu.Lock()
	rdShut, wrShut := s.rdShut, s.wrShut
	s.mu.Unlock()
	r := s.endpoint().Readiness(waiter.ReadableEvents | waiter.WritableEvents)
	ev := events(r) & (unix.POLLIN | unix.POLLOUT)
	if s.troubled() {
		ev |= unix.POLLERR
	}
	if rdShut {
		ev |= unix.POLLIN | unix.POLLRDHUP
		if wrShut {
			ev |= unix.POLLHUP
		}
	}
	return ev
}

// Close releases the socket and throws away what it has queued.
func (s *packetSocket) Close() error {
	if !s.closed.Swap(true) {
		s.enroll()
		s.endpoint().Close()
	}
	return nil
}
