// SPDX-License-Identifier: Apache-2.0

// Which raw socket receives what.

package netstack

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks"
	"umrun/stacks/bpf"
)

// A rawKey is what packets are told apart by.
type rawKey struct {
	net   tcpip.NetworkProtocolNumber
	proto int
}

// A rawHub gives every packet that arrives to all raw sockets that take it. gVisor
// calls it for the protocols that it has joined, once for each packet, wherever that
// arrived: maybe below a call of a socket that sends. It looks at IPv6 itself, since
// gVisor's raw delivery sees neither behind extension headers nor whole packets where
// there are fragments.
type rawHub struct {
	st *Stack

	mu     sync.RWMutex // a leaf but for the mutexes of inboxes
	socks  map[rawKey][]*rawSocket
	joined map[rawKey]int // sockets that need it

	frags fragments
}

// extensions are the headers that IPv6 may have in front of the payload.
var extensions = []int{unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_DSTOPTS}

// needs lists the protocols that gVisor must deliver for a socket.
func (s *rawSocket) needs() []rawKey {
	keys := []rawKey{{s.netProto(), s.proto}}
	if s.family == unix.AF_INET6 {
		for _, x := range extensions {
			if x != s.proto {
				keys = append(keys, rawKey{s.netProto(), x})
			}
		}
	}
	return keys
}

// add enters a socket. Protocols above 255 are on no packet.
func (h *rawHub) add(s *rawSocket) {
	defer h.st.bypasses.recall(nil)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.socks == nil {
		h.socks, h.joined = make(map[rawKey][]*rawSocket), make(map[rawKey]int)
	}
	k := rawKey{s.netProto(), s.proto}
	h.socks[k] = append(slices.Clone(h.socks[k]), s) // a copy: deliveries may be going through the old one
	for _, k := range s.needs() {
		if h.joined[k]++; h.joined[k] == 1 && k.proto <= 255 {
			if err := h.st.gv.RegisterRawTransportEndpoint(k.net, tcpip.TransportProtocolNumber(k.proto), h); err != nil {
				h.st.log.Error("receive for raw sockets", "protocol", k.proto, "err", err)
			}
		}
	}
}

// remove takes a socket out.
func (h *rawHub) remove(s *rawSocket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := rawKey{s.netProto(), s.proto}
	h.socks[k] = slices.DeleteFunc(slices.Clone(h.socks[k]), func(o *rawSocket) bool { return o == s })
	for _, k := range s.needs() {
		if h.joined[k]--; h.joined[k] == 0 && k.proto <= 255 {
			h.st.gv.UnregisterRawTransportEndpoint(k.net, tcpip.TransportProtocolNumber(k.proto), h)
		}
	}
}

// sees tells whether a socket receives packets of a protocol.
func (h *rawHub) sees(proto tcpip.TransportProtocolNumber) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.socks[rawKey{header.IPv4ProtocolNumber, int(proto)}])+len(h.socks[rawKey{header.IPv6ProtocolNumber, int(proto)}]) > 0
}

// takers returns the sockets that a packet is for.
func (h *rawHub) takers(k rawKey, src, dst netip.Addr, nic tcpip.NICID) []*rawSocket {
	h.mu.RLock()
	all := h.socks[k]
	h.mu.RUnlock()
	var out []*rawSocket
	for _, s := range all {
		if s.takes(src, dst, nic) {
			out = append(out, s)
		}
	}
	return out
}

// HandlePacket implements stack.RawTransportEndpoint.
func (h *rawHub) HandlePacket(p *stack.PacketBuffer) {
	net := p.Network()
	src, dst := addrOf(0, net.SourceAddress(), 0), addrOf(0, net.DestinationAddress(), 0)
	if !h.arrived(p, dst) {
		return
	}
	if p.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		h.deliver4(p, src, dst)
		return
	}
	h.deliver6(flat(p), src, dst, p.NICID)
}

// arrived tells whether the packet is for this stack; gVisor asks only later.
func (h *rawHub) arrived(p *stack.PacketBuffer, dst netip.Addr) bool {
	if p.NICID == loopbackNIC || dst.IsMulticast() {
		return true
	}
	a := gvAddr(dst)
	return h.st.gv.CheckLocalAddress(p.NICID, p.NetworkProtocolNumber, a) != 0 ||
		dst.Is4() && (dst.As4() == [4]byte{255, 255, 255, 255} || h.st.gv.IsSubnetBroadcast(p.NICID, p.NetworkProtocolNumber, a))
}

// flat is a packet's bytes from its IP header on.
func flat(p *stack.PacketBuffer) []byte {
	n, t := p.NetworkHeader().Slice(), p.TransportHeader().Slice()
	b := make([]byte, 0, len(n)+len(t)+p.Data().Size())
	return append(append(append(b, n...), t...), p.Data().AsRange().ToSlice()...)
}

func (h *rawHub) deliver4(p *stack.PacketBuffer, src, dst netip.Addr) {
	ip := header.IPv4(p.NetworkHeader().Slice())
	takers := h.takers(rawKey{header.IPv4ProtocolNumber, int(ip.Protocol())}, src, dst, p.NICID)
	if len(takers) == 0 {
		return
	}
	b := flat(p)
	// gVisor leaves that of a packet that was put together as it was.
	if h := header.IPv4(b); !h.IsChecksumValid() {
		h.SetChecksum(0)
		h.SetChecksum(^h.CalculateChecksum())
	}
	tos, _ := ip.TOS()
	m := stacks.Message{
		Peer: netip.AddrPortFrom(src, 0), Local: dst, IfIndex: int(p.NICID), TTL: int(ip.TTL()), TOS: int(tos), Stamp: time.Now().UnixNano(),
	}
	view := bpf.Packet{Data: b, Net: b, Proto: unix.ETH_P_IP, IfIndex: int(p.NICID), HAType: h.st.hardware(p.NICID)}
	for _, s := range takers {
		if s.proto == unix.IPPROTO_ICMP && s.filtered(b[ip.HeaderLength():]) {
			continue
		}
		s.receive(&view, m)
	}
}

// deliver6 goes through the headers of an IPv6 packet: a raw socket may be for one of
// them (net/ipv6/ip6_input.c:ip6_protocol_deliver_rcu).
func (h *rawHub) deliver6(b []byte, src, dst netip.Addr, nic tcpip.NICID) {
	ip := header.IPv6(b)
	class, _ := ip.TOS()
	next, at := int(ip.NextHeader()), header.IPv6MinimumSize
	for {
		m := stacks.Message{
			Peer: netip.AddrPortFrom(scoped(src, nic), 0), Local: scoped(dst, nic), IfIndex: int(nic),
			TTL: int(ip.HopLimit()), TOS: int(class), Stamp: time.Now().UnixNano(),
		}
		view := bpf.Packet{Data: b[at:], Net: b, Proto: unix.ETH_P_IPV6, IfIndex: int(nic), HAType: h.st.hardware(nic)}
		for _, s := range h.takers(rawKey{header.IPv6ProtocolNumber, next}, src, dst, nic) {
			if s.sumIsRight(b[at:], src, dst) && (next != unix.IPPROTO_ICMPV6 || !s.filtered(b[at:])) {
				s.receive(&view, m)
			}
		}
		if !slices.Contains(extensions, next) || len(b) < at+8 {
			return
		}
		if next == unix.IPPROTO_FRAGMENT && !atomicFragment(b[at:]) {
			if b, next = h.frags.collect(b, at); b == nil {
				return
			}
			ip = header.IPv6(b)
			continue
		}
		n := 8
		if next != unix.IPPROTO_FRAGMENT {
			n = 8 + 8*int(b[at+1])
		}
		next, at = int(b[at]), at+n
		if at > len(b) {
			return
		}
	}
}

// scoped adds the zone that a link-local address has.
func scoped(a netip.Addr, nic tcpip.NICID) netip.Addr {
	return addrOf(unix.AF_INET6, gvAddr(a), nic)
}

// sumIsRight verifies the checksum of a socket that has one, IPV6_CHECKSUM.
func (s *rawSocket) sumIsRight(b []byte, src, dst netip.Addr) bool {
	s.in.mu.Lock()
	sum := s.in.sum
	s.in.mu.Unlock()
	if sum < 0 {
		return true
	}
	pseudo := header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(s.proto), gvAddr(src), gvAddr(dst), uint16(len(b)))
	return checksum.Checksum(b, pseudo) == 0xffff
}

// report tells raw sockets what ICMP says of a packet of theirs, or of what they
// might have sent (net/ipv4/raw.c:raw_icmp_error, net/ipv6/raw.c:rawv6_err).
func (h *rawHub) report(e icmpError, nic tcpip.NICID) {
	src, dst := e.src.Addr(), e.dst.Addr()
	for _, s := range h.takers(rawKey{protoOf(src), e.proto}, dst, src, nic) {
		r, hard := e.report, e.hard
		if e.mtu != 0 { // raw sockets have their own idea of when it matters
			strategy := s.reports.strategy.Load()
			hard = s.family == unix.AF_INET && strategy != unix.IP_PMTUDISC_DONT || strategy == unix.IPV6_PMTUDISC_DO
		}
		r.Dst = netip.AddrPortFrom(dst, 0)
		r.Payload = e.body
		if s.hdrincl() {
			r.Payload = e.packet
		}
		r.Msg.IfIndex, r.Msg.Stamp = int(nic), time.Now().UnixNano()
		s.report(r, hard)
	}
}
