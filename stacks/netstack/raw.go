// SPDX-License-Identifier: Apache-2.0

// Raw sockets, raw(7): their names and states, and what they have received.

package netstack

import (
	"io"
	"math"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/raw"
	"gvisor.dev/gvisor/pkg/waiter"

	"umrun/stacks"
	"umrun/stacks/bpf"
)

// A rawSocket is a socket below the transport protocols. gVisor's endpoint keeps its
// options and memberships in groups; what it sends is made in rawsend.go, and what it
// receives comes from the [rawHub].
//
// Its addresses are in inbox, not in sock: what the socket sends may come back to it
// before the call that sends returns.
type rawSocket struct {
	sock
	in     inbox
	queued atomic.Int64 // bytes that the link has not taken yet
}

var (
	_ stacks.PacketSocket = (*rawSocket)(nil)
	_ stacks.Reporter     = (*rawSocket)(nil)
)

// An inbox decides what is received, and holds it. Its mutex is a leaf.
type inbox struct {
	mu     sync.Mutex
	hashed bool           // false: receives nothing
	local  netip.Addr     // only packets to it; the zero Addr: any
	source netip.Addr     // packets are sent from it; the zero Addr: the route's
	remote netip.Addr     // only packets from it, likewise
	dev    tcpip.NICID    // only packets by it, in both directions; 0: any
	dport  uint16         // as connect(2) gave it; it means nothing
	peer   netip.AddrPort // what to send to, with its zone; valid when connected
	rdShut bool
	wrShut bool

	hdrincl bool         // IP_HDRINCL, IPV6_HDRINCL
	filter  *bpf.Program // SO_ATTACH_FILTER
	locked  bool         // SO_LOCK_FILTER
	icmp    icmpFilter
	sum     int // offset of the checksum, IPV6_CHECKSUM; negative: none

	queue []rawPacket
	bytes int // of queue, with rawOverhead
}

// A rawPacket waits to be received. Its bytes are shared with other sockets.
type rawPacket struct {
	data []byte
	msg  stacks.Message
}

// rawOverhead is what a packet counts for SO_RCVBUF besides its bytes: about what a
// sk_buff costs.
const rawOverhead = 512

// newRaw makes a raw socket.
func newRaw(st *Stack, family, proto int) (*rawSocket, error) {
	s := &rawSocket{sock: sock{st: st, family: family, typ: unix.SOCK_RAW, proto: proto, wq: &waiter.Queue{}, reports: new(reports)}}
	s.uid.Store(me)
	ep, gerr := raw.EndpointFactory{}.NewUnassociatedEndpoint(st.gv, s.netProto(), tcpip.TransportProtocolNumber(proto), s.wq)
	if gerr != nil {
		return nil, errno(gerr)
	}
	ep.SocketOptions().SetReceiveBufferSize(defaultPktBuf, false /* notify */)
	s.ep.Store(&epBox{ep})
	s.raw = s
	ep.SocketOptions().SetReuseAddress(true) // INET_PROTOSW_REUSE
	s.in.hashed = true
	s.in.sum = -1
	s.reports.strategy.Store(unix.IP_PMTUDISC_WANT)
	switch {
	case proto == unix.IPPROTO_RAW:
		s.in.hdrincl = true
	case family == unix.AF_INET6 && proto == unix.IPPROTO_ICMPV6:
		s.in.sum = header.ICMPv6ChecksumOffset
	}
	st.raws.add(s)
	return s, nil
}

func (s *rawSocket) netProto() tcpip.NetworkProtocolNumber {
	if s.family == unix.AF_INET6 {
		return header.IPv6ProtocolNumber
	}
	return header.IPv4ProtocolNumber
}

// hdrincl tells whether packets are sent with the header that the program made.
func (s *rawSocket) hdrincl() bool {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.hdrincl
}

// known is an address or, for the unspecified one, the zero Addr.
func known(a netip.Addr) netip.Addr {
	if a = a.WithZone(""); a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// Bind names the socket: packets come to and leave from the address. A socket can be
// bound again, and any number to one address (net/ipv4/raw.c:raw_bind,
// net/ipv6/raw.c:rawv6_bind).
func (s *rawSocket) Bind(a netip.AddrPort) error {
	if err := s.down(); err != nil {
		return err
	}
	ip := a.Addr()
	if s.family == unix.AF_INET6 && ip.Is4In6() {
		return unix.EADDRNOTAVAIL
	}
	f, err := full(s.family, a)
	if err != nil {
		return err
	}
	if f.NIC == 0 && needsScope(ip) {
		f.NIC = s.device()
	}
	switch {
	case !needsScope(ip):
	case f.NIC == 0:
		return unix.EINVAL // net/ipv6/raw.c:rawv6_bind
	case !s.st.gv.HasNIC(f.NIC):
		return unix.ENODEV
	}
	s.in.mu.Lock()
	connected := s.in.peer.IsValid()
	s.in.mu.Unlock()
	if connected {
		return unix.EINVAL
	}
	source := known(ip)
	switch {
	case !source.IsValid():
	case source.IsMulticast():
		source = netip.Addr{}
	case source.Is4() && (source.As4() == [4]byte{255, 255, 255, 255} || s.st.broadcast(f)):
		source = netip.Addr{}
	case !s.bindsAny() && s.st.gv.CheckLocalAddress(f.NIC, s.netProto(), f.Addr) == 0:
		return unix.EADDRNOTAVAIL
	}
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if ip.Zone() != "" {
		s.in.dev = f.NIC
	}
	s.in.local, s.in.source = known(ip), source
	return nil
}

// bindsAny tells whether addresses of others can be bound, too.
func (s *rawSocket) bindsAny() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.val(optKey{ip4, unix.IP_TRANSPARENT}, 0)|s.val(optKey{ip4, unix.IP_FREEBIND}, 0)|s.val(optKey{ip6, unix.IPV6_TRANSPARENT}, 0) != 0
}

// Connect fixes the peer: only its packets are received, and an unbound socket gets
// the route's address. After the association is dissolved a socket receives nothing
// at all, however it is used: Linux takes it out of the table that packets are
// delivered by and never enters it again (net/ipv4/udp.c:__udp_disconnect).
func (s *rawSocket) Connect(a netip.AddrPort) error {
	if err := s.down(); err != nil {
		return err
	}
	if !a.IsValid() {
		s.in.mu.Lock()
		defer s.in.mu.Unlock()
		s.in.hashed = false
		s.reports.connected.Store(false)
		s.in.local, s.in.source, s.in.remote, s.in.peer, s.in.dport = netip.Addr{}, netip.Addr{}, netip.Addr{}, netip.AddrPort{}, 0
		return nil
	}
	if f, err := full(s.family, a); err == nil {
		if err := s.connectScope(&f, a.Addr()); err != nil {
			return err
		}
		a = withZone(a, f.NIC)
	}
	w, err := s.way(a, netip.Addr{}, stacks.Message{})
	if err != nil {
		return err
	}
	defer w.release()
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if !s.in.source.IsValid() {
		s.in.source = w.src
	}
	if !s.in.local.IsValid() {
		s.in.local = w.src
	}
	s.reports.connected.Store(true)
	s.in.remote, s.in.dport = w.dst, a.Port()
	s.in.peer = netip.AddrPortFrom(w.dst.WithZone(a.Addr().Zone()), 0)
	return nil
}

// Names returns the local and the remote address. Their ports are the protocol and
// what Connect was given; a peer with port 0 is none (net/ipv4/af_inet.c:inet_getname).
func (s *rawSocket) Names() (local, remote netip.AddrPort) {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	a := s.in.local
	switch {
	case a.IsValid():
	case s.family == unix.AF_INET6:
		a = netip.IPv6Unspecified()
	default:
		a = netip.IPv4Unspecified()
	}
	port := uint16(s.proto)
	if !s.in.hashed {
		port = 0
	}
	if s.in.peer.IsValid() && s.in.dport != 0 {
		remote = netip.AddrPortFrom(s.in.peer.Addr(), s.in.dport)
	}
	return withZone(netip.AddrPortFrom(a, port), s.in.dev), remote
}

// Peer implements stacks.Peered.
func (s *rawSocket) Peer() netip.Addr {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.peer.Addr()
}

// Shutdown is shutdown(2). Nothing is kept from being sent by it but packets that
// come with their header.
func (s *rawSocket) Shutdown(how int) error {
	flags, err := shutdownFlags(how)
	if err != nil {
		return err
	}
	if err := s.down(); err != nil {
		return err
	}
	s.in.mu.Lock()
	connected := s.in.peer.IsValid()
	s.in.rdShut = s.in.rdShut || flags&tcpip.ShutdownRead != 0
	s.in.wrShut = s.in.wrShut || flags&tcpip.ShutdownWrite != 0
	s.in.mu.Unlock()
	if !connected {
		return unix.ENOTCONN
	}
	s.wq.Notify(waiter.ReadableEvents | waiter.EventRdHUp)
	return nil
}

// takes tells whether packets of the socket's protocol from src to dst, which came in
// by nic, are for the socket (net/ipv4/raw.c:raw_v4_match).
func (s *rawSocket) takes(src, dst netip.Addr, nic tcpip.NICID) bool {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.hashed &&
		(!s.in.remote.IsValid() || s.in.remote == src) &&
		(!s.in.local.IsValid() || s.in.local == dst) &&
		(s.in.dev == 0 || s.in.dev == nic)
}

// receive queues a packet, unless a filter or the lack of room is against it. view is
// the packet as filters see it; what of it is kept, the filter decides.
func (s *rawSocket) receive(view *bpf.Packet, msg stacks.Message) {
	room := int(s.endpoint().SocketOptions().GetReceiveBufferSize())
	s.in.mu.Lock()
	data := view.Data
	if s.in.filter != nil {
		data = data[:min(uint64(s.in.filter.Run(view)), uint64(len(data)))]
		if len(data) == 0 {
			s.in.mu.Unlock()
			return
		}
	}
	if s.in.bytes >= room || s.closed.Load() {
		s.in.mu.Unlock()
		return
	}
	s.in.queue = append(s.in.queue, rawPacket{data, msg})
	s.in.bytes += len(data) + rawOverhead
	s.in.mu.Unlock()
	s.wq.Notify(waiter.ReadableEvents)
}

// RecvMsg takes or shows the first packet: with its header if it is IPv4, without it
// if it is IPv6. After SHUT_RD the error is io.EOF where recv(2) would return 0.
func (s *rawSocket) RecvMsg(p []byte, peek bool) (n, size int, m stacks.Message, err error) {
	if err := s.down(); err != nil {
		return 0, 0, m, err
	}
	if e := s.takePending(); e != 0 {
		return 0, 0, m, e
	}
	for {
		r, err := s.take(peek)
		if err != nil {
			return 0, 0, m, err
		}
		if s.family == unix.AF_INET6 || s.hearsGroup(&r.msg) {
			r.msg.IfIndex = s.arrival(&r.msg)
			return copy(p, r.data), len(r.data), r.msg, nil
		}
		if peek { // look at the one behind it
			if _, err := s.take(false); err != nil {
				return 0, 0, m, err
			}
		}
	}
}

// take takes the first packet of the queue, or leaves it there.
func (s *rawSocket) take(leave bool) (rawPacket, error) {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if len(s.in.queue) == 0 {
		if s.in.rdShut {
			return rawPacket{}, io.EOF
		}
		return rawPacket{}, unix.EAGAIN
	}
	r := s.in.queue[0]
	if !leave {
		s.in.queue[0] = rawPacket{}
		s.in.queue = s.in.queue[1:]
		s.in.bytes -= len(r.data) + rawOverhead
	}
	return r, nil
}

// Poll returns what poll(2) would.
func (s *rawSocket) Poll() stacks.Events {
	var ev stacks.Events
	if s.queued.Load() < s.endpoint().SocketOptions().GetSendBufferSize() {
		ev |= unix.POLLOUT
	}
	if s.troubled() {
		ev |= unix.POLLERR
	}
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if len(s.in.queue) > 0 {
		ev |= unix.POLLIN
	}
	if s.in.rdShut {
		ev |= unix.POLLIN | unix.POLLRDHUP
		if s.in.wrShut {
			ev |= unix.POLLHUP
		}
	}
	return ev
}

// Option is getsockopt(2). What gVisor's endpoint cannot know is answered here.
func (s *rawSocket) Option(level, name int, value []byte) (int, error) {
	switch (optKey{level, name}) {
	case optKey{sock0, unix.SO_ERROR}:
		if err := s.down(); err != nil {
			return 0, err
		}
		return copy(value, bytesOf(int(s.takePending()))), nil
	case optKey{ip4, unix.IP_MTU}, optKey{ip6, unix.IPV6_MTU}:
		if level == ip6 && s.family == unix.AF_INET {
			break
		}
		s.in.mu.Lock()
		peer := s.in.peer
		s.in.mu.Unlock()
		if !peer.IsValid() {
			return 0, unix.ENOTCONN
		}
		w, err := s.way(peer, netip.Addr{}, stacks.Message{})
		if err != nil {
			return 0, unix.ENOTCONN
		}
		defer w.release()
		return copy(value, bytesOf(w.mtu)), nil
	}
	return s.sock.Option(level, name, value)
}

// Close releases the socket and throws away what it has queued.
func (s *rawSocket) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.st.raws.remove(s)
	s.endpoint().Close()
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.in.queue, s.in.bytes = nil, math.MaxInt
	return nil
}
