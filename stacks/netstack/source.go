// SPDX-License-Identifier: Apache-2.0

// UDP over IPv4 from a source address of the program's choice.

package netstack

import (
	"math"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"umrun/stacks"
)

// firstLoopback is the address that Linux chooses towards all of 127/8; gVisor
// chooses the destination.
var firstLoopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// loopbackSource is the source of a datagram to a loopback address of IPv4, if the
// socket has no address; else the zero Addr.
func (s *packetSocket) loopbackSource(to netip.Addr) netip.Addr {
	to = to.Unmap()
	if s.proto != unix.IPPROTO_UDP || !to.Is4() || !to.IsLoopback() || to == firstLoopback || !s.localName().Addr().Unmap().IsUnspecified() {
		return netip.Addr{}
	}
	return firstLoopback
}

// arrival is the interface that a datagram came in by: what was sent to the address
// of another interface did not leave the loopback one, but is told as that one's
// (net/ipv4/ip_sockglue.c:ipv4_pktinfo_prepare).
func (s *sock) arrival(m *stacks.Message) int {
	to := m.Local.Unmap().WithZone("")
	if m.IfIndex != loopbackNIC || !to.IsValid() || to.IsLoopback() || to.IsMulticast() {
		return m.IfIndex
	}
	if nic := s.st.gv.CheckLocalAddress(0, protoOf(to), gvAddr(to)); nic != 0 {
		return int(nic)
	}
	return m.IfIndex
}

// writeFrom sends one UDP datagram from m.Local. A server that is bound to the
// wildcard answers so from the address that it was asked at; gVisor's endpoints
// always take the route's. SO_SNDBUF does not count such datagrams.
func (s *packetSocket) writeFrom(p []byte, to *tcpip.FullAddress, m stacks.Message) tcpip.Error {
	ep := s.endpoint()
	if err := ep.LastError(); err != nil {
		return err
	}
	local, err := ep.GetLocalAddress()
	if err == nil && local.Port == 0 {
		if err = ep.Bind(tcpip.FullAddress{}); err == nil {
			local, err = ep.GetLocalAddress()
		}
	}
	if err != nil {
		return err
	}
	r, err := s.route(to, gvAddr(m.Local.Unmap()))
	if err != nil {
		return err
	}
	defer r.Release()
	if r.IsOutboundBroadcast() && !ep.SocketOptions().GetBroadcast() {
		return &tcpip.ErrBroadcastDisabled{}
	}
	port := uint16(0)
	if to != nil {
		port = to.Port
	} else if f, err := ep.GetRemoteAddress(); err == nil {
		port = f.Port
	}

	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.UDPMinimumSize + int(r.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(p),
	})
	defer pkt.DecRef()
	pkt.Owner = &owner{&s.sock}
	h := header.UDP(pkt.TransportHeader().Push(header.UDPMinimumSize))
	pkt.TransportProtocolNumber = udp.ProtocolNumber
	length := uint16(pkt.Size())
	h.Encode(&header.UDPFields{SrcPort: local.Port, DstPort: port, Length: length})
	sum := h.CalculateChecksum(checksum.Combine(
		r.PseudoHeaderChecksum(udp.ProtocolNumber, length), pkt.Data().Checksum()))
	// RFC 768: zero is no checksum, so a sum of zero is sent as all ones.
	if sum != math.MaxUint16 {
		sum = ^sum
	}
	h.SetChecksum(sum)

	params := stack.NetworkHeaderParams{Protocol: udp.ProtocolNumber, TTL: r.DefaultTTL()}
	if n, err := ep.GetSockOptInt(tcpip.IPv4TTLOption); err == nil && n != tcpip.UseDefaultIPv4TTL {
		params.TTL = uint8(n)
	}
	if m.TTL > 0 {
		params.TTL = uint8(m.TTL)
	}
	if n, err := ep.GetSockOptInt(tcpip.IPv4TOSOption); err == nil {
		params.TOS = uint8(n)
	}
	if m.TOS > 0 {
		params.TOS = uint8(m.TOS)
	}
	if n, err := ep.GetSockOptInt(tcpip.MTUDiscoverOption); err == nil {
		params.DF = n != int(tcpip.PMTUDiscoveryDont)
	}
	return r.WritePacket(params, pkt)
}
