// SPDX-License-Identifier: Apache-2.0

// UDP over IPv4 from a source address of the program's choice.

package netstack

import (
	"math"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"umrun/stacks"
)

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
