// SPDX-License-Identifier: Apache-2.0

// The protocols that only raw sockets know.

package netstack

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/waiter"
)

// An otherProtocol stands for a protocol that gVisor does not have: it delivers to raw
// sockets only what has an entry among its transport protocols. A packet that no raw
// socket takes is answered as one of an unknown protocol is.
type otherProtocol struct {
	st     *Stack
	number tcpip.TransportProtocolNumber
}

// otherProtocols makes an entry for each number that has none.
func (s *Stack) otherProtocols(have ...tcpip.TransportProtocolNumber) []stack.TransportProtocolFactory {
	var all []stack.TransportProtocolFactory
	for n := tcpip.TransportProtocolNumber(0); n <= 255; n++ {
		if !slices.Contains(have, n) {
			all = append(all, func(*stack.Stack) stack.TransportProtocol { return &otherProtocol{s, n} })
		}
	}
	return all
}

// Number implements stack.TransportProtocol.
func (p *otherProtocol) Number() tcpip.TransportProtocolNumber { return p.number }

// NewEndpoint implements stack.TransportProtocol.
func (p *otherProtocol) NewEndpoint(tcpip.NetworkProtocolNumber, *waiter.Queue) (tcpip.Endpoint, tcpip.Error) {
	return nil, &tcpip.ErrUnknownProtocol{}
}

// NewRawEndpoint implements stack.TransportProtocol; see rawSocket.
func (p *otherProtocol) NewRawEndpoint(tcpip.NetworkProtocolNumber, *waiter.Queue) (tcpip.Endpoint, tcpip.Error) {
	return nil, &tcpip.ErrUnknownProtocol{}
}

// MinimumPacketSize implements stack.TransportProtocol.
func (p *otherProtocol) MinimumPacketSize() int { return 0 }

// ParsePorts implements stack.TransportProtocol.
func (p *otherProtocol) ParsePorts([]byte) (src, dst uint16, err tcpip.Error) { return 0, 0, nil }

// SetOption implements stack.TransportProtocol.
func (p *otherProtocol) SetOption(tcpip.SettableTransportProtocolOption) tcpip.Error {
	return &tcpip.ErrUnknownProtocolOption{}
}

// Option implements stack.TransportProtocol.
func (p *otherProtocol) Option(tcpip.GettableTransportProtocolOption) tcpip.Error {
	return &tcpip.ErrUnknownProtocolOption{}
}

// Close implements stack.TransportProtocol.
func (p *otherProtocol) Close() {}

// Wait implements stack.TransportProtocol.
func (p *otherProtocol) Wait() {}

// Pause implements stack.TransportProtocol.
func (p *otherProtocol) Pause() {}

// Resume implements stack.TransportProtocol.
func (p *otherProtocol) Resume() {}

// Restore implements stack.TransportProtocol.
func (p *otherProtocol) Restore() {}

// Parse implements stack.TransportProtocol. gVisor takes packets without a transport
// header for damaged, so what there is, is one.
func (p *otherProtocol) Parse(pkt *stack.PacketBuffer) bool {
	_, ok := pkt.TransportHeader().Consume(pkt.Data().Size())
	return ok
}

// HandleUnknownDestinationPacket implements stack.TransportProtocol: raw sockets have
// had the packet, if there are any for it.
func (p *otherProtocol) HandleUnknownDestinationPacket(id stack.TransportEndpointID, pkt *stack.PacketBuffer) stack.UnknownDestinationPacketDisposition {
	k := rawKey{pkt.NetworkProtocolNumber, int(p.number)}
	if len(p.st.raws.takers(k, addrOf(0, id.RemoteAddress, 0), addrOf(0, id.LocalAddress, 0), pkt.NICID)) == 0 {
		p.st.refuse(pkt, id)
	}
	return stack.UnknownDestinationPacketHandled
}

// Most of a packet that an error about it quotes: the error fits into the least MTU
// that every link has (RFC 1812 §4.3.2.3, RFC 4443 §2.4).
const (
	quoteMax4 = 576 - header.IPv4MinimumSize - icmpHeaderLen
	quoteMax6 = header.IPv6MinimumMTU - header.IPv6MinimumSize - icmpHeaderLen
)

// icmpHeaderLen is the length of the header of an ICMP error, bytes.
const icmpHeaderLen = 8

// refuse tells the sender of pkt that its protocol is unknown: ICMP's "protocol
// unreachable" (RFC 1122 §3.2.2.1), ICMPv6's "unrecognized next header" (RFC 4443 §3.4).
func (s *Stack) refuse(pkt *stack.PacketBuffer, id stack.TransportEndpointID) {
	src, dst := addrOf(0, id.RemoteAddress, 0), addrOf(0, id.LocalAddress, 0)
	if src.IsUnspecified() || src.IsMulticast() || dst.IsMulticast() || pkt.NetworkPacketInfo.LocalAddressBroadcast || !s.gv.AllowICMPMessage() {
		return
	}
	quote := flat(pkt)
	if pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		s.sayAbout(quote, id.LocalAddress, id.RemoteAddress, byte(header.ICMPv4DstUnreachable), byte(header.ICMPv4ProtoUnreachable), 0)
		return
	}
	s.sayAbout(quote, id.LocalAddress, id.RemoteAddress, byte(header.ICMPv6ParamProblem), byte(header.ICMPv6UnknownHeader), uint32(nextHeaderAt(quote)))
}

// sayAbout sends an ICMP error about a packet, which begins with its IP header; info is
// the second word of the message.
func (s *Stack) sayAbout(quote []byte, from, to tcpip.Address, typ, code byte, info uint32) {
	proto := header.IPv4ProtocolNumber
	if to.Len() == header.IPv6AddressSize {
		proto = header.IPv6ProtocolNumber
	}
	r, err := s.gv.FindRoute(0, from, to, proto, false)
	if err != nil {
		return
	}
	defer r.Release()
	msg := make([]byte, icmpHeaderLen, icmpHeaderLen+len(quote))
	params := stack.NetworkHeaderParams{TTL: r.DefaultTTL()}
	msg[0], msg[1] = typ, code
	binary.BigEndian.PutUint32(msg[4:], info)
	if proto == header.IPv4ProtocolNumber {
		params.Protocol, params.TOS = header.ICMPv4ProtocolNumber, precedence
		msg = append(msg, quote[:min(len(quote), quoteMax4)]...)
		binary.BigEndian.PutUint16(msg[2:], ^checksum.Checksum(msg, 0))
	} else {
		params.Protocol = header.ICMPv6ProtocolNumber
		msg = append(msg, quote[:min(len(quote), quoteMax6)]...)
		sum := r.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, uint16(len(msg)))
		binary.BigEndian.PutUint16(msg[2:], ^checksum.Checksum(msg, sum))
	}
	out := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(r.MaxHeaderLength()), Payload: buffer.MakeWithData(msg),
	})
	defer out.DecRef()
	if err := r.WritePacket(params, out); err != nil {
		s.log.Debug("tell by ICMP", "err", err)
	}
}

// precedence is the TOS of Linux's ICMP errors, "internetwork control".
const precedence = 0xc0

// nextHeaderAt is the offset of the field that names the protocol of an IPv6 packet's
// payload.
func nextHeaderAt(b []byte) int {
	field, at := header.IPv6NextHeaderOffset, header.IPv6MinimumSize
	for slices.Contains(extensions, int(b[field])) && at+8 <= len(b) {
		n := 8
		if b[field] != unix.IPPROTO_FRAGMENT {
			n += 8 * int(b[at+1])
		}
		field, at = at, at+n
	}
	return field
}
