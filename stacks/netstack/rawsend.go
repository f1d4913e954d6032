// SPDX-License-Identifier: Apache-2.0

// Sending on raw sockets: the way of a packet, and its IP header.

package netstack

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"

	"umrun/stacks"
)

// maxIP is the largest IPv4 packet, and the largest payload of an IPv6 one, bytes.
const maxIP = 65535

// A way is where a packet goes.
type way struct {
	dst, src netip.Addr   // without zones; src is the route's, or what the socket is bound to
	nic      tcpip.NICID  // it leaves by
	mtu      int          // of nic, bytes
	route    *stack.Route // nil: there is none, and the device that was asked for is believed
}

func (w *way) release() {
	if w.route != nil {
		w.route.Release()
	}
}

// loops tells whether the packet, or a copy of it, comes back.
func (w *way) loops() bool {
	return w.nic == loopbackNIC || w.route != nil && w.route.Loop()&stack.PacketLoop != 0
}

// way finds out how a packet to an address gets there. The unspecified address is the
// loopback address. source is what the program has chosen, or the zero Addr.
func (s *rawSocket) way(to netip.AddrPort, source netip.Addr, m stacks.Message) (way, error) {
	f, err := full(s.family, to)
	if err != nil {
		return way{}, err
	}
	w := way{dst: to.Addr().WithZone("")}
	if w.dst.IsUnspecified() {
		w.dst = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if s.family == unix.AF_INET6 {
			w.dst = netip.IPv6Loopback()
		}
		f.Addr = gvAddr(w.dst)
	}
	ep := s.endpoint()
	if f.NIC == 0 {
		f.NIC = tcpip.NICID(m.IfIndex)
	}
	if f.NIC == 0 {
		s.in.mu.Lock()
		f.NIC = s.in.dev
		s.in.mu.Unlock()
	}
	if f.NIC == 0 && w.dst.IsMulticast() {
		f.NIC = s.multicastNIC()
	}
	s.mu.Lock()
	noGroups := s.noGroups(f)
	s.mu.Unlock()
	if noGroups {
		return way{}, unix.ENETUNREACH
	}
	// Requests to own addresses: see packetSocket.destination.
	if own := s.st.gv.CheckLocalAddress(0, s.netProto(), f.Addr); own != 0 && w.dst.Is4() && (f.NIC == 0 || f.NIC == loopbackNIC) {
		f.NIC = own
	}
	m.Local = source
	v, err := s.steer(&f, &m, false)
	if err != nil {
		return way{}, err
	}
	loop := ep.SocketOptions().GetMulticastLoop()
	var r *stack.Route
	var gerr tcpip.Error
	s.st.by(v, func() { r, gerr = s.st.gv.FindRoute(f.NIC, tcpip.Address{}, f.Addr, s.netProto(), loop) })
	switch {
	case gerr == nil:
		w.route, w.nic = r, r.OutgoingNIC()
		w.src = addrOf(s.family, r.LocalAddress(), 0).WithZone("")
	case f.NIC != 0 && w.dst.Is4():
		// A device without a route: the address is on its link
		// (net/ipv4/route.c:ip_route_output_key_hash_rcu).
		w.nic = f.NIC
	default:
		return way{}, unix.ENETUNREACH
	}
	found := false
	for _, i := range s.st.State().Interfaces {
		if i.Index != int(w.nic) {
			continue
		}
		found, w.mtu = i.Up, i.MTU
		for _, p := range i.Addrs {
			if !w.src.IsValid() && p.Addr().Is4() {
				w.src = p.Addr()
			}
		}
	}
	if !found || !w.src.IsValid() {
		w.release()
		return way{}, unix.ENETUNREACH
	}
	if w.route != nil && w.route.IsOutboundBroadcast() && !ep.SocketOptions().GetBroadcast() {
		w.release()
		return way{}, unix.EACCES
	}
	return w, nil
}

// multicastNIC is the interface of IP_MULTICAST_IF or IPV6_MULTICAST_IF, 0 for none.
func (s *sock) multicastNIC() tcpip.NICID {
	if s.family == unix.AF_INET6 {
		n, err := s.endpoint().GetSockOptInt(tcpip.IPv6MulticastInterfaceOption)
		if err != nil {
			return 0
		}
		return tcpip.NICID(n)
	}
	var o tcpip.MulticastInterfaceOption
	if err := s.endpoint().GetSockOpt(&o); err != nil {
		return 0
	}
	if o.NIC == 0 && o.InterfaceAddr.Len() > 0 {
		return s.st.gv.CheckLocalAddress(0, header.IPv4ProtocolNumber, o.InterfaceAddr)
	}
	return o.NIC
}

// SendMsg sends a packet: behind a header that is made here, or whole, if the socket
// has IP_HDRINCL.
func (s *rawSocket) SendMsg(p []byte, m stacks.Message) error {
	if err := s.down(); err != nil {
		return err
	}
	if len(p) > maxIP {
		return unix.EMSGSIZE
	}
	s.in.mu.Lock()
	to, source, sum, wrShut := s.in.peer, s.in.source, s.in.sum, s.in.wrShut
	s.in.mu.Unlock()
	proto := s.proto
	if m.Peer.IsValid() {
		to = m.Peer
		if port := int(to.Port()); s.family == unix.AF_INET6 && port != 0 {
			// The port may name the protocol (net/ipv6/raw.c:rawv6_sendmsg).
			if port != proto && proto != unix.IPPROTO_RAW || port > 255 {
				return unix.EINVAL
			}
			proto = port
		}
	}
	if !to.IsValid() {
		return unix.EDESTADDRREQ
	}
	if src := m.Local.Unmap().WithZone(""); src.IsValid() && !src.IsUnspecified() {
		if s.st.gv.CheckLocalAddress(0, protoOf(src), gvAddr(src)) == 0 {
			if s.family == unix.AF_INET6 {
				return unix.EINVAL
			}
			return unix.ENETUNREACH
		}
		source = src
	}
	w, err := s.way(to, source, m)
	if err != nil {
		return err
	}
	defer w.release()
	if source.IsValid() {
		w.src = source
	}
	if s.queued.Load() >= s.endpoint().SocketOptions().GetSendBufferSize() {
		return unix.EAGAIN
	}
	if s.hdrincl() {
		if e := s.takePending(); e != 0 { // sock_alloc_send_skb
			return e
		}
		if wrShut {
			return unix.EPIPE
		}
		return s.sendWhole(p, &w)
	}
	if s.family != unix.AF_INET6 {
		b, err := s.packet4(p, m, &w)
		if err != nil {
			return err
		}
		return s.emit(b, &w)
	}
	b, err := s.packet6(p, m, &w, proto, sum)
	if err != nil {
		return err
	}
	for _, part := range split6(b, s.st.paths.of(w.dst, w.mtu)) {
		if err := s.emit(part, &w); err != nil {
			return err
		}
	}
	return nil
}

// split6 cuts an IPv6 packet without extension headers into fragments of at most mtu
// bytes, if it is longer (RFC 8200 §4.5). gVisor would take the beginning of some
// protocols for an extension header.
func split6(b []byte, mtu int) [][]byte {
	if len(b) <= mtu {
		return [][]byte{b}
	}
	h, body := header.IPv6(b[:header.IPv6MinimumSize]), b[header.IPv6MinimumSize:]
	room := (mtu - len(h) - fragmentHeader) &^ 7
	id := rand.Uint32()
	var parts [][]byte
	for at := 0; at < len(body); at += room {
		data := body[at:min(at+room, len(body))]
		part := make([]byte, len(h)+fragmentHeader, len(h)+fragmentHeader+len(data))
		copy(part, h)
		header.IPv6(part).SetNextHeader(unix.IPPROTO_FRAGMENT)
		header.IPv6(part).SetPayloadLength(uint16(fragmentHeader + len(data)))
		f := part[len(h):]
		f[0] = h.NextHeader()
		flags := uint16(at)
		if at+room < len(body) {
			flags |= 1 // more follow
		}
		binary.BigEndian.PutUint16(f[2:], flags)
		binary.BigEndian.PutUint32(f[4:], id)
		parts = append(parts, append(part, data...))
	}
	return parts
}

// packet4 makes an IPv4 packet (net/ipv4/ip_output.c:__ip_make_skb).
func (s *rawSocket) packet4(p []byte, m stacks.Message, w *way) ([]byte, error) {
	n := header.IPv4MinimumSize + len(p)
	if n > maxIP {
		return nil, unix.EMSGSIZE
	}
	ttl, tos, err := s.hops(m, w.dst, tcpip.IPv4TTLOption, tcpip.IPv4TOSOption)
	if err != nil {
		return nil, err
	}
	f := header.IPv4Fields{
		TotalLength: uint16(n), ID: uint16(1 + rand.IntN(maxIP)), TTL: ttl, TOS: tos, Protocol: uint8(s.proto),
		SrcAddr: gvAddr(w.src), DstAddr: gvAddr(w.dst),
	}
	whole, err := s.dontFragment()
	if err != nil {
		return nil, err
	}
	mtu := s.st.paths.of(w.dst, w.mtu)
	if n > mtu && whole == always {
		return nil, s.tooBig(w.dst, mtu)
	}
	if n <= mtu && whole != never {
		f.Flags = header.IPv4FlagDontFragment
	}
	b := make([]byte, n)
	h := header.IPv4(b)
	h.Encode(&f)
	h.SetChecksum(^h.CalculateChecksum())
	copy(b[header.IPv4MinimumSize:], p)
	return b, nil
}

// packet6 makes an IPv6 packet, with the checksum of IPV6_CHECKSUM at offset sum
// (net/ipv6/raw.c:rawv6_push_pending_frames).
func (s *rawSocket) packet6(p []byte, m stacks.Message, w *way, proto, sum int) ([]byte, error) {
	if sum >= 0 && sum >= len(p)-1 {
		return nil, unix.EINVAL
	}
	n := header.IPv6MinimumSize + len(p)
	hops, class, err := s.hops(m, w.dst, tcpip.IPv6HopLimitOption, tcpip.IPv6TrafficClassOption)
	if err != nil {
		return nil, err
	}
	whole, err := s.dontFragment()
	if err != nil {
		return nil, err
	}
	if mtu := s.st.paths.of(w.dst, w.mtu); n > mtu && whole == always {
		return nil, s.tooBig(w.dst, mtu)
	}
	b := make([]byte, n)
	header.IPv6(b).Encode(&header.IPv6Fields{
		TrafficClass: class, PayloadLength: uint16(len(p)), TransportProtocol: tcpip.TransportProtocolNumber(proto),
		HopLimit: hops, SrcAddr: gvAddr(w.src), DstAddr: gvAddr(w.dst),
	})
	body := b[header.IPv6MinimumSize:]
	copy(body, p)
	if sum >= 0 {
		at := body[sum : sum+2]
		binary.BigEndian.PutUint16(at, 0)
		pseudo := header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(proto), gvAddr(w.src), gvAddr(w.dst), uint16(len(body)))
		v := ^checksum.Checksum(body, pseudo)
		if v == 0 && proto == unix.IPPROTO_UDP {
			v = 0xffff
		}
		binary.BigEndian.PutUint16(at, v)
	}
	return b, nil
}

// hops returns the TTL or hop limit of a packet to dst and its TOS or traffic class.
func (s *rawSocket) hops(m stacks.Message, dst netip.Addr, ttlOpt, tosOpt tcpip.SockOptInt) (ttl, tos uint8, err error) {
	ep := s.endpoint()
	if dst.IsMulticast() {
		ttlOpt = tcpip.MulticastTTLOption
	}
	hops, gerr := ep.GetSockOptInt(ttlOpt)
	if gerr != nil {
		return 0, 0, errno(gerr)
	}
	if m.TTL > 0 {
		hops = m.TTL
	}
	if hops == tcpip.UseDefaultIPv6HopLimit || hops == tcpip.UseDefaultIPv4TTL && ttlOpt == tcpip.IPv4TTLOption {
		hops = 64 // net.ipv4.ip_default_ttl
	}
	class, gerr := ep.GetSockOptInt(tosOpt)
	if gerr != nil {
		return 0, 0, errno(gerr)
	}
	if m.TOS > 0 {
		class = m.TOS
	}
	return uint8(hops), uint8(class), nil
}

// tooBig is EMSGSIZE for a packet to dst; the error queue tells the MTU, and the port
// that the socket was connected to (net/ipv4/ip_sockglue.c:ip_local_error).
func (s *rawSocket) tooBig(dst netip.Addr, mtu int) error {
	s.in.mu.Lock()
	port := s.in.dport
	s.in.mu.Unlock()
	s.report(stacks.Report{
		Errno: unix.EMSGSIZE, Origin: unix.SO_EE_ORIGIN_LOCAL, Info: uint32(mtu), Dst: netip.AddrPortFrom(dst, port), Msg: noMessage,
	}, false)
	return unix.EMSGSIZE
}

// What IP_MTU_DISCOVER and IPV6_DONTFRAG say of fragments.
type wholeness int

const (
	never  wholeness = iota // fragments are fine, for routers too
	want                    // made here if need be
	always                  // a packet above the MTU gives EMSGSIZE
)

func (s *rawSocket) dontFragment() (wholeness, error) {
	s.mu.Lock()
	dontFrag := s.val(optKey{ip6, unix.IPV6_DONTFRAG}, 0) != 0 && s.family == unix.AF_INET6
	s.mu.Unlock()
	if dontFrag {
		return always, nil
	}
	n, err := s.endpoint().GetSockOptInt(tcpip.MTUDiscoverOption)
	if err != nil {
		return 0, errno(err)
	}
	switch tcpip.PMTUDStrategy(n) {
	case tcpip.PMTUDiscoveryDont:
		return never, nil
	case tcpip.PMTUDiscoveryWant:
		return want, nil
	}
	return always, nil
}

// sendWhole sends a packet that comes with its header. Of IPv4's the length and the
// checksum are set, and source and identification if they are 0 (raw(7)); IPv6's is
// sent as it is. Who is named as the source is up to the program: a peer drops what is
// not routed to the view.
func (s *rawSocket) sendWhole(p []byte, w *way) error {
	if len(p) > w.mtu {
		return s.tooBig(w.dst, w.mtu)
	}
	b := append([]byte(nil), p...)
	if s.family == unix.AF_INET6 {
		if len(b) < header.IPv6MinimumSize {
			return unix.EINVAL
		}
		if w.loops() {
			return s.emitLocal6(b, w)
		}
		return s.emitRaw(b, w)
	}
	if len(b) < header.IPv4MinimumSize {
		return unix.EINVAL
	}
	h := header.IPv4(b)
	if n := int(h[0]&0xf) * 4; n < header.IPv4MinimumSize || n > len(b) {
		return unix.EINVAL
	}
	h.SetTotalLength(uint16(len(b)))
	if h.SourceAddress().Unspecified() {
		h.SetSourceAddress(gvAddr(w.src))
	}
	if h.ID() == 0 {
		h.SetID(uint16(1 + rand.IntN(maxIP)))
	}
	h.SetChecksum(0)
	h.SetChecksum(^h.CalculateChecksum())
	if w.loops() {
		return s.emit(b, w)
	}
	return s.emitRaw(b, w)
}

// emitLocal6 sends a packet that stays here, with what the receiving side of the
// kernel would do to it: gVisor's sending side corrects the length instead.
func (s *rawSocket) emitLocal6(b []byte, w *way) error {
	h := header.IPv6(b)
	n := header.IPv6MinimumSize + int(h.PayloadLength())
	if n > len(b) {
		return nil // dropped
	}
	return s.emit(b[:n], w)
}

// emit hands a packet with a sound header to gVisor, which cuts it into fragments
// where it must be; one that is not sound is dropped, as on its way.
func (s *rawSocket) emit(b []byte, w *way) error {
	if w.route == nil {
		return s.emitRaw(b, w)
	}
	n := int64(len(b))
	s.queued.Add(n)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(w.route.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(b),
		Mark:               rawMark,
		OnRelease: func() {
			left := s.queued.Add(-n)
			if room := s.endpoint().SocketOptions().GetSendBufferSize(); left < room && left+n >= room {
				s.wq.Notify(waiter.WritableEvents)
			}
		},
	})
	defer pkt.DecRef()
	pkt.Owner = &owner{&s.sock}
	return sent(w.route.WriteHeaderIncludedPacket(pkt))
}

// emitRaw hands a packet to the link as it is.
func (s *rawSocket) emitRaw(b []byte, w *way) error {
	if w.nic == loopbackNIC {
		return nil // to nobody here: it is dropped when it comes back
	}
	if s.st.hardware(w.nic) == unix.ARPHRD_ETHER {
		return sent(s.st.toNeighbour(b, w))
	}
	return sent(s.st.gv.WriteRawPacketWithMark(w.nic, s.netProto(), buffer.MakeWithData(b), rawMark))
}

// sent is the result of sending: what is lost on the way is no error, nor is a full
// queue (net/ipv4/raw.c: net_xmit_errno counts with IP_RECVERR only).
func sent(err tcpip.Error) error {
	switch err.(type) {
	case nil, *tcpip.ErrMalformedHeader, *tcpip.ErrNoBufferSpace:
		return nil
	case *tcpip.ErrHostUnreachable:
		return unix.ENETUNREACH
	}
	if e := errno(err); !errors.Is(e, unix.EIO) {
		return e
	}
	return unix.ENOBUFS
}
