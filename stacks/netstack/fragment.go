// SPDX-License-Identifier: Apache-2.0

// Datagrams over IPv6 in fragments that fit a path that is narrower than the link.

package netstack

import (
	"bytes"
	"math"
	"math/rand/v2"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"umrun/stacks"
)

// writeFragments sends one datagram, of UDP or a ping, in packets of at most mtu bytes. IPv6
// routers do not fragment (RFC 8200 §4.5), and gVisor knows of the link's MTU only.
// SO_SNDBUF does not count such datagrams.
func (s *packetSocket) writeFragments(p []byte, to *tcpip.FullAddress, m stacks.Message, mtu int) tcpip.Error {
	ep := s.endpoint()
	local, err := ep.GetLocalAddress()
	if err != nil {
		return err
	}
	source := local.Addr
	if m.Local.IsValid() && !m.Local.IsUnspecified() {
		source = gvAddr(m.Local.WithZone(""))
	}
	r, err := s.route(to, source)
	if err != nil {
		return err
	}
	defer r.Release()
	port := uint16(0)
	if to != nil {
		port = to.Port
	} else if f, err := ep.GetRemoteAddress(); err == nil {
		port = f.Port
	}

	var whole []byte
	if s.proto == unix.IPPROTO_UDP {
		whole = make([]byte, header.UDPMinimumSize+len(p))
		copy(whole[header.UDPMinimumSize:], p)
		h := header.UDP(whole)
		h.Encode(&header.UDPFields{SrcPort: local.Port, DstPort: port, Length: uint16(len(whole))})
		sum := checksum.Checksum(whole, r.PseudoHeaderChecksum(udp.ProtocolNumber, uint16(len(whole))))
		if sum != math.MaxUint16 { // RFC 8200 §8.1: zero is sent as all ones
			sum = ^sum
		}
		h.SetChecksum(sum)
	} else {
		if len(p) < header.ICMPv6EchoMinimumSize || header.ICMPv6(p).Type() != header.ICMPv6EchoRequest || header.ICMPv6(p).Code() != 0 {
			return &tcpip.ErrInvalidEndpointState{} // as gVisor's endpoint
		}
		whole = bytes.Clone(p)
		h := header.ICMPv6(whole)
		h.SetIdent(local.Port)
		h.SetChecksum(header.ICMPv6Checksum(header.ICMPv6ChecksumParams{Header: h, Src: r.LocalAddress(), Dst: r.RemoteAddress()}))
	}

	hops, class := r.DefaultTTL(), uint8(0)
	if n, err := ep.GetSockOptInt(tcpip.IPv6HopLimitOption); err == nil && n != tcpip.UseDefaultIPv6HopLimit {
		hops = uint8(n)
	}
	if m.TTL > 0 {
		hops = uint8(m.TTL)
	}
	if n, err := ep.GetSockOptInt(tcpip.IPv6TrafficClassOption); err == nil {
		class = uint8(n)
	}
	if m.TOS > 0 {
		class = uint8(m.TOS)
	}
	id := rand.Uint32()
	room := (mtu - header.IPv6MinimumSize - header.IPv6FragmentHeaderSize) &^ 7
	for off := 0; off < len(whole); off += room {
		part := whole[off:min(off+room, len(whole))]
		b := make([]byte, header.IPv6MinimumSize+header.IPv6FragmentHeaderSize+len(part))
		header.IPv6(b).Encode(&header.IPv6Fields{
			TrafficClass:      class,
			PayloadLength:     uint16(header.IPv6FragmentHeaderSize + len(part)),
			TransportProtocol: transportOf(s.proto),
			HopLimit:          hops,
			SrcAddr:           r.LocalAddress(),
			DstAddr:           r.RemoteAddress(),
			ExtensionHeaders: header.IPv6ExtHdrSerializer{&header.IPv6SerializableFragmentExtHdr{
				FragmentOffset: uint16(off / 8),
				M:              off+room < len(whole),
				Identification: id,
			}},
		})
		copy(b[len(b)-len(part):], part)
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
			ReserveHeaderBytes: int(r.MaxHeaderLength()),
			Payload:            buffer.MakeWithData(b),
		})
		pkt.Owner = &owner{&s.sock}
		err := r.WriteHeaderIncludedPacket(pkt)
		pkt.DecRef()
		if err != nil {
			return err
		}
	}
	return nil
}
