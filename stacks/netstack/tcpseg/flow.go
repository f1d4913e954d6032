// SPDX-License-Identifier: Apache-2.0

// Whose a segment is, and where its header is.

package tcpseg

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A Flow names one direction of a connection. IPv4 addresses are in the first four bytes.
type Flow struct {
	Src, Dst         [16]byte
	SrcPort, DstPort uint16
}

// FlowOf reads the addresses and ports of a TCP segment that gVisor sends.
func FlowOf(p *stack.PacketBuffer) (k Flow, ok bool) {
	n, t := p.NetworkHeader().Slice(), p.TransportHeader().Slice()
	if len(t) < 4 {
		return k, false
	}
	switch header.IPVersion(n) {
	case header.IPv4Version:
		if len(n) < header.IPv4MinimumSize {
			return k, false
		}
		copy(k.Src[:], n[12:16])
		copy(k.Dst[:], n[16:20])
	case header.IPv6Version:
		if len(n) < header.IPv6MinimumSize {
			return k, false
		}
		copy(k.Src[:], n[8:24])
		copy(k.Dst[:], n[24:40])
	default:
		return k, false
	}
	k.SrcPort, k.DstPort = binary.BigEndian.Uint16(t), binary.BigEndian.Uint16(t[2:])
	return k, true
}

// A Packet is a whole packet with TCP in it.
type Packet struct {
	ID  stack.TransportEndpointID // as the receiver has it
	TCP header.TCP                // to the end of what the packet was found in
}

// Of takes a packet apart; ok is false for other packets, for fragments, and
// where the headers are not whole.
func Of(b []byte) (s Packet, ok bool) {
	var src, dst []byte
	switch {
	case len(b) < header.IPv4MinimumSize:
		return s, false
	case b[0]>>4 == header.IPv4Version:
		ip := header.IPv4(b)
		n := int(ip.HeaderLength())
		if ip.Protocol() != uint8(header.TCPProtocolNumber) || ip.FragmentOffset() != 0 || ip.More() || n < header.IPv4MinimumSize || n > len(b) {
			return s, false
		}
		src, dst, b = ip.SourceAddressSlice(), ip.DestinationAddressSlice(), b[n:]
	case b[0]>>4 == header.IPv6Version && len(b) >= header.IPv6MinimumSize:
		ip := header.IPv6(b)
		if ip.NextHeader() != uint8(header.TCPProtocolNumber) {
			return s, false
		}
		src, dst, b = b[8:24], b[24:40], b[header.IPv6MinimumSize:]
	default:
		return s, false
	}
	if len(b) < header.TCPMinimumSize {
		return s, false
	}
	s.TCP = header.TCP(b)
	s.ID = stack.TransportEndpointID{
		LocalPort: s.TCP.DestinationPort(), LocalAddress: tcpip.AddrFromSlice(dst),
		RemotePort: s.TCP.SourcePort(), RemoteAddress: tcpip.AddrFromSlice(src),
	}
	return s, true
}

// back is the flow of what its receiver sends.
func (s *Packet) back() (k Flow) {
	copy(k.Src[:], s.ID.LocalAddress.AsSlice())
	copy(k.Dst[:], s.ID.RemoteAddress.AsSlice())
	k.SrcPort, k.DstPort = s.ID.LocalPort, s.ID.RemotePort
	return k
}

// FlagsOf returns the flags of a packet's segment, 0 if it has none, without taking it apart.
func FlagsOf(b []byte) header.TCPFlags {
	const proto4, proto6 = 9, 6
	at := 0
	switch {
	case len(b) < header.IPv4MinimumSize:
		return 0
	case b[0]>>4 == header.IPv4Version && b[proto4] == uint8(header.TCPProtocolNumber):
		at = int(b[0]&0xf) * 4
	case b[0]>>4 == header.IPv6Version && b[proto6] == uint8(header.TCPProtocolNumber):
		at = header.IPv6MinimumSize
	default:
		return 0
	}
	if at += header.TCPFlagsOffset; at >= len(b) {
		return 0
	}
	return header.TCPFlags(b[at])
}
