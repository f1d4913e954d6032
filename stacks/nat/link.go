// SPDX-License-Identifier: Apache-2.0

// Read and Write: packets from and to the view.

package nat

import (
	"io"
	"net"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"umrun/stacks"
	"umrun/stacks/offload"
)

const (
	batch = 64
	// batchBytes ends a Read early, so that a reader's buffers stay in the cache
	// while super-segments pass.
	batchBytes = 256 << 10
)

// Type returns [stacks.LinkIP].
func (*Link) Type() stacks.LinkType { return stacks.LinkIP }

// MTU returns the bytes of the network layer; TCP super-segments are longer.
func (l *Link) MTU() int { return l.opts.MTU }

// BatchSize returns 64.
func (*Link) BatchSize() int { return batch }

// Offloads reports true.
func (*Link) Offloads() bool { return true }

// Read waits for packets to the view, see [stacks.Link]. A packet that does not
// fit into its buffer is dropped and reported as io.ErrShortBuffer.
func (l *Link) Read(bufs [][]byte, sizes []int) (int, error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	l.readMu.Lock()
	defer l.readMu.Unlock()
	if l.next == len(l.cur) {
		got, err := l.out.take(l.cur)
		if err != nil {
			l.cur, l.next = nil, 0
			return 0, err
		}
		l.cur, l.next = got, 0
	}
	n, total := 0, 0
	for ; l.next < len(l.cur) && n < len(bufs) && total < batchBytes; l.next++ {
		p := l.cur[l.next]
		l.cur[l.next] = packet{}
		if p.pkt != nil {
			sizes[n] = encode(p.pkt, bufs[n])
		} else if sizes[n] = copy(bufs[n], p.raw); sizes[n] < len(p.raw) {
			sizes[n] = 0
		}
		p.drop()
		if sizes[n] == 0 {
			l.next++
			return n, io.ErrShortBuffer
		}
		total += sizes[n]
		n++
	}
	return n, nil
}

// Write takes packets from the view, see [stacks.Link]. It never blocks: TCP is
// slowed down by its window, and where a datagram finds the host's socket full
// it is dropped, as a network would.
func (l *Link) Write(bufs [][]byte) (int, error) {
	if !l.enter() {
		return 0, net.ErrClosed
	}
	defer l.leave()
	var h offload.Hdr
	for _, b := range bufs {
		if h.Decode(b) != nil {
			l.stats.malformed.Add(1)
			continue
		}
		b = b[offload.HdrLen:]
		if len(b) == 0 {
			l.stats.malformed.Add(1)
			continue
		}
		switch b[0] >> 4 {
		case 4:
			l.input4(h, b)
		case 6:
			l.input6(h, b)
		default:
			l.stats.malformed.Add(1)
		}
	}
	return len(bufs), nil
}

// A datagram is the transport part of a packet of the view, with what an answer
// or an ICMP error must know of the rest. It is valid during the call it is
// passed to.
type datagram struct {
	packet   []byte // from the IP header on
	src, dst addr   // of the IP header
	ttl      uint8
	payload  []byte // from the transport header on
	summed   bool   // the transport checksum needs no look
}

// newPacket copies b into a packet for the private stack.
func newPacket(b []byte) *stack.PacketBuffer {
	return stack.NewPacketBuffer(stack.PacketBufferOptions{
		Payload: buffer.MakeWithView(buffer.NewViewWithData(b)),
	})
}

// input4 sorts an IPv4 packet of the view: RFC 1122 §3.2.1 says what to drop
// silently.
func (l *Link) input4(h offload.Hdr, b []byte) {
	ip := header.IPv4(b)
	if len(b) < header.IPv4MinimumSize {
		l.stats.malformed.Add(1)
		return
	}
	hlen, total := int(ip.HeaderLength()), int(ip.TotalLength())
	if hlen < header.IPv4MinimumSize || total < hlen || total > len(b) || !ip.IsChecksumValid() {
		l.stats.malformed.Add(1)
		return
	}
	b = b[:total]
	src, dst := addr4(b[12:16]), addr4(b[16:20])
	if !l.fromView(src) || !toUnicast(dst) {
		l.stats.ignored.Add(1)
		return
	}
	d := datagram{
		packet: b, src: src, dst: dst, ttl: ip.TTL(), payload: b[hlen:],
		summed: h.Flags&(offload.NeedsCsum|offload.DataValid) != 0,
	}
	fragment := ip.More() || ip.FragmentOffset() != 0
	switch proto := ip.Protocol(); {
	case proto == uint8(header.TCPProtocolNumber):
		l.inputTCP(d, header.IPv4ProtocolNumber, fragment)
	case proto == uint8(header.UDPProtocolNumber) && fragment:
		l.dev.deliver(header.IPv4ProtocolNumber, b)
	case proto == uint8(header.UDPProtocolNumber):
		l.inputUDP(d)
	case proto == uint8(header.ICMPv4ProtocolNumber) && !fragment:
		l.inputEcho(d)
	case fragment: // ICMP larger than the MTU: not carried
		l.stats.ignored.Add(1)
	default:
		l.unreachable(d, unreachProto)
	}
}

// input6 is input4 for IPv6. Only the extension headers that a host's programs
// can ask for are followed.
func (l *Link) input6(h offload.Hdr, b []byte) {
	if len(b) < header.IPv6MinimumSize {
		l.stats.malformed.Add(1)
		return
	}
	ip := header.IPv6(b)
	total := header.IPv6MinimumSize + int(ip.PayloadLength())
	if total > len(b) {
		l.stats.malformed.Add(1)
		return
	}
	b = b[:total]
	src, dst := addr6(b[8:24]), addr6(b[24:40])
	if !l.fromView(src) || !toUnicast(dst) {
		l.stats.ignored.Add(1)
		return
	}
	d := datagram{
		packet: b, src: src, dst: dst, ttl: ip.HopLimit(),
		summed: h.Flags&(offload.NeedsCsum|offload.DataValid) != 0,
	}
	proto, rest, fragment := ip.NextHeader(), b[header.IPv6MinimumSize:], false
	for !fragment {
		if proto != uint8(header.IPv6HopByHopOptionsExtHdrIdentifier) && proto != uint8(header.IPv6DestinationOptionsExtHdrIdentifier) &&
			proto != uint8(header.IPv6FragmentExtHdrIdentifier) {
			break
		}
		if len(rest) < 8 {
			l.stats.malformed.Add(1)
			return
		}
		n := 8 * (1 + int(rest[1])) // RFC 8200 §4.3
		if fragment = proto == uint8(header.IPv6FragmentExtHdrIdentifier); fragment {
			n = 8
		}
		if n > len(rest) {
			l.stats.malformed.Add(1)
			return
		}
		proto, rest = rest[0], rest[n:]
	}
	d.payload = rest
	switch {
	case proto == uint8(header.TCPProtocolNumber):
		l.inputTCP(d, header.IPv6ProtocolNumber, fragment)
	case proto == uint8(header.UDPProtocolNumber) && fragment:
		l.dev.deliver(header.IPv6ProtocolNumber, b)
	case proto == uint8(header.UDPProtocolNumber):
		l.inputUDP(d)
	case proto == uint8(header.ICMPv6ProtocolNumber) && !fragment:
		l.inputEcho(d)
	case fragment || proto == uint8(header.IPv6NoNextHeaderIdentifier):
		l.stats.ignored.Add(1)
	default:
		l.unreachable(d, unreachProto)
	}
}

// inputTCP gives a segment to the private stack, which trusts the checksum of
// whatever arrives. Fragments are no segments: no stack makes any.
func (l *Link) inputTCP(d datagram, proto netProto, fragment bool) {
	if fragment {
		l.stats.ignored.Add(1)
		return
	}
	if !d.summed &&
		!sumOK(uint8(header.TCPProtocolNumber), d.src.AsSlice(), d.dst.AsSlice(), d.payload) {
		l.stats.malformed.Add(1)
		return
	}
	l.takeOver(d, proto)
	if ack := l.dev.shut.Arriving(d.packet); ack != nil {
		l.dev.deliver(proto, ack)
	}
	l.dev.deliver(proto, d.packet)
}

// takeOver makes way for a SYN where an old connection of the same name is in
// TIME_WAIT. It may (RFC 9293 §3.6.1), but gVisor lets only a listener take over,
// and the forwarder is none: the SYN would be lost, and the program wait a second
// for the next. With ports chosen at random this is one connect in a hundred where
// 300 connections close within [timeWait].
func (l *Link) takeOver(d datagram, proto netProto) {
	seg := header.TCP(d.payload)
	if len(seg) < header.TCPMinimumSize || seg.Flags()&(header.TCPFlagSyn|header.TCPFlagAck) != header.TCPFlagSyn {
		return
	}
	old := l.stack.FindTransportEndpoint(proto, header.TCPProtocolNumber, stack.TransportEndpointID{
		LocalPort: seg.DestinationPort(), LocalAddress: tcpip.AddrFromSlice(d.dst.AsSlice()),
		RemotePort: seg.SourcePort(), RemoteAddress: tcpip.AddrFromSlice(d.src.AsSlice()),
	}, nicID)
	if ep, ok := old.(*tcp.Endpoint); ok && ep.EndpointState() == tcp.StateTimeWait {
		// What reset it sends has no acceptable number for the new connection.
		ep.Abort()
	}
}
