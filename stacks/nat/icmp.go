// SPDX-License-Identifier: Apache-2.0

// Packets that the NAT makes itself: datagrams and ICMP errors to the view.

package nat

import (
	"encoding/binary"
	"errors"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"umrun/stacks/offload"
)

const (
	protoICMP4 = uint8(header.ICMPv4ProtocolNumber)
	protoTCP   = uint8(header.TCPProtocolNumber)
	protoUDP   = uint8(header.UDPProtocolNumber)
	protoICMP6 = uint8(header.ICMPv6ProtocolNumber)

	ourTTL  = 64
	maxIP   = 65535
	udpHdr  = header.UDPMinimumSize
	icmpHdr = 8 // of errors and echoes, both versions
)

// A reason is an ICMP error in both versions: type and code of RFC 792 and RFC
// 1812, and of RFC 4443.
type reason struct{ type4, code4, type6, code6 uint8 }

var (
	unreachNet   = reason{3, 0, 1, 0}
	unreachHost  = reason{3, 1, 1, 3}
	unreachProto = reason{3, 2, 4, 1}
	unreachPort  = reason{3, 3, 1, 4}
	tooBig       = reason{3, 4, 2, 0}
	prohibited   = reason{3, 13, 1, 1}
	exceeded     = reason{11, 0, 3, 0}
)

// reasonOf says which ICMP error makes the view's stack report err, the host's
// answer to a connect or a send; false if there is none.
func reasonOf(err error) (reason, bool) {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EAFNOSUPPORT),
		errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.EADDRNOTAVAIL):
		return unreachNet, true
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EHOSTDOWN),
		errors.Is(err, unix.EINVAL):
		return unreachHost, true
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return prohibited, true
	case errors.Is(err, unix.ECONNREFUSED):
		return unreachPort, true
	}
	return reason{}, false
}

// smallRaws are for the packets of newRaw that fit, which is most of them.
var smallRaws = sync.Pool{New: func() any { return new([smallRaw]byte) }}

const smallRaw = 2048

// getRaw returns size bytes, of which only the virtio_net_hdr is cleared.
func getRaw(size int) []byte {
	if size > smallRaw {
		return make([]byte, size)
	}
	raw := smallRaws.Get().(*[smallRaw]byte)[:size]
	clear(raw[:offload.HdrLen])
	return raw
}

// putRaw takes back what getRaw returned.
func putRaw(raw []byte) {
	if cap(raw) == smallRaw {
		smallRaws.Put((*[smallRaw]byte)(raw[:smallRaw]))
	}
}

// newRaw makes a packet for the queue: virtio_net_hdr, IP header and size bytes
// of transport, which are returned for the caller to fill. It returns nils if
// the packet would be longer than IP allows.
func newRaw(from, to addr, proto uint8, size int) (raw, transport []byte) {
	ipLen := header.IPv4MinimumSize
	if from.Is6() {
		ipLen = header.IPv6MinimumSize
	}
	if ipLen+size > maxIP {
		return nil, nil
	}
	raw = getRaw(offload.HdrLen + ipLen + size)
	b := raw[offload.HdrLen:]
	if from.Is4() {
		// Atomic in the sense of RFC 6864: never fragmented, hence no ID.
		ip := header.IPv4(b)
		ip.Encode(&header.IPv4Fields{
			TotalLength: uint16(ipLen + size),
			Flags:       header.IPv4FlagDontFragment,
			TTL:         ourTTL,
			Protocol:    proto,
			SrcAddr:     tcpip.AddrFrom4(from.As4()),
			DstAddr:     tcpip.AddrFrom4(to.As4()),
		})
		ip.SetChecksum(^ip.CalculateChecksum())
	} else {
		header.IPv6(b).Encode(&header.IPv6Fields{
			PayloadLength:     uint16(size),
			TransportProtocol: tcpip.TransportProtocolNumber(proto),
			HopLimit:          ourTTL,
			SrcAddr:           tcpip.AddrFrom16(from.As16()),
			DstAddr:           tcpip.AddrFrom16(to.As16()),
		})
	}
	return raw, b[ipLen:]
}

// partial asks for the checksum at offset of the transport header to be
// completed, and sums the pseudo header into it.
func partial(raw []byte, from, to addr, proto uint8, transport []byte, offset int) {
	offload.Hdr{
		Flags:      offload.NeedsCsum,
		CsumStart:  uint16(len(raw) - offload.HdrLen - len(transport)),
		CsumOffset: uint16(offset),
	}.Encode(raw)
	sum := header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(proto),
		tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice()), uint16(len(transport)))
	binary.BigEndian.PutUint16(transport[offset:], sum)
}

// sumICMP completes the checksum of an ICMP message of either version.
func sumICMP(from, to addr, msg []byte) {
	var sum uint16
	if from.Is6() {
		sum = header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber,
			tcpip.AddrFrom16(from.As16()), tcpip.AddrFrom16(to.As16()), uint16(len(msg)))
	}
	msg[2], msg[3] = 0, 0
	binary.BigEndian.PutUint16(msg[2:], ^checksum.Checksum(msg, sum))
}

// unreachable answers d with an ICMP error. A port is unreachable by its own
// host's word, all else by the gateway's.
func (l *Link) unreachable(d datagram, r reason) {
	from := gateway(d.dst)
	if r == unreachPort {
		from = d.dst
	}
	var info uint32
	if r == unreachProto && from.Is6() {
		info = 6 // where the next header field is, RFC 4443 §3.4
	}
	l.icmpError(from, d.src, r, info, d.packet)
}

// icmpError sends the view an error about orig, as much as must be of it. info
// is the second word: the MTU of tooBig, the pointer of a parameter problem.
func (l *Link) icmpError(from, to addr, r reason, info uint32, orig []byte) {
	typ, code, proto, limit := r.type4, r.code4, protoICMP4, 576-header.IPv4MinimumSize-icmpHdr // RFC 1812 §4.3.2.3
	if from.Is6() {
		typ, code, proto, limit = r.type6, r.code6, protoICMP6, 1280-header.IPv6MinimumSize-icmpHdr // RFC 4443 §2.4
	}
	orig = orig[:min(len(orig), limit)]
	raw, msg := newRaw(from, to, proto, icmpHdr+len(orig))
	msg[0], msg[1] = typ, code
	binary.BigEndian.PutUint32(msg[4:], info)
	copy(msg[icmpHdr:], orig)
	sumICMP(from, to, msg)
	l.stats.icmpErrors.Add(1)
	l.out.put(packet{raw: raw}, false)
}

// original makes up the packet that an ICMP error is about, from what the host's
// error queue tells of it: transport header and the payload's beginning.
func original(from, to addr, proto uint8, transport []byte) []byte {
	raw, t := newRaw(from, to, proto, len(transport))
	if raw == nil {
		return nil
	}
	copy(t, transport)
	return raw[offload.HdrLen:]
}

// sendUDP sends the view a datagram; wait is that of queue.put.
func (l *Link) sendUDP(from, to addrPort, payload []byte, wait bool) {
	raw, seg := newRaw(from.Addr(), to.Addr(), protoUDP, udpHdr+len(payload))
	if raw == nil {
		l.stats.ignored.Add(1)
		return
	}
	putUDP(seg, from.Port(), to.Port(), len(payload))
	copy(seg[udpHdr:], payload)
	partial(raw, from.Addr(), to.Addr(), protoUDP, seg, 6)
	l.stats.udpIn.Add(1)
	l.out.put(packet{raw: raw}, wait)
}

// putUDP writes a UDP header without checksum, RFC 768.
func putUDP(seg []byte, from, to uint16, payload int) {
	binary.BigEndian.PutUint16(seg, from)
	binary.BigEndian.PutUint16(seg[2:], to)
	binary.BigEndian.PutUint16(seg[4:], uint16(udpHdr+payload))
}
