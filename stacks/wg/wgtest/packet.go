// SPDX-License-Identifier: Apache-2.0

// Packets made by hand, with checksums summed the slow way.

package wgtest

import (
	"encoding/binary"
	"net/netip"

	"umrun/stacks/offload"
)

// UDP returns a UDP datagram in IP.
func UDP(src, dst netip.Addr, sport, dport uint16, payload []byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, sport)
	p = binary.BigEndian.AppendUint16(p, dport)
	p = binary.BigEndian.AppendUint16(p, uint16(8+len(payload)))
	p = append(p, 0, 0)
	p = append(p, payload...)
	putChecksum(p[6:], p, src, dst, 17)
	if p[6] == 0 && p[7] == 0 {
		p[6], p[7] = 0xff, 0xff // RFC 768
	}
	return ip(src, dst, 17, p)
}

// Echo returns an ICMP or ICMPv6 echo request.
func Echo(src, dst netip.Addr, payload []byte) []byte {
	p := append([]byte{8, 0, 0, 0, 0, 1, 0, 1}, payload...)
	if src.Is4() {
		binary.BigEndian.PutUint16(p[2:], ^Sum(p, 0))
		return ip(src, dst, 1, p)
	}
	p[0] = 128
	putChecksum(p[2:], p, src, dst, 58)
	return ip(src, dst, 58, p)
}

// TCP returns a data segment from port 1000 to 2000 with timestamps, ACK and PSH
// set. With an mss that data exceeds, it is a super-segment that the header
// belongs to; its TCP checksum is then left to be made.
func TCP(src, dst netip.Addr, seq uint32, data []byte, mss int) (offload.Hdr, []byte) {
	p := binary.BigEndian.AppendUint16(nil, 1000)
	p = binary.BigEndian.AppendUint16(p, 2000)
	p = binary.BigEndian.AppendUint32(p, seq)
	p = binary.BigEndian.AppendUint32(p, 99) // acknowledgement
	p = append(p, 8<<4, 0x18, 1, 0, 0, 0, 0, 0)
	p = append(p, 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2) // NOP, NOP, timestamps
	hl := len(p)
	p = append(p, data...)
	var h offload.Hdr
	if mss == 0 || len(data) <= mss {
		putChecksum(p[16:], p, src, dst, 6)
		return h, ip(src, dst, 6, p)
	}
	h = offload.Hdr{Flags: offload.NeedsCsum, GSOType: offload.GSOTCPv4, GSOSize: uint16(mss), CsumStart: 20, CsumOffset: 16}
	if src.Is6() {
		h.GSOType, h.CsumStart = offload.GSOTCPv6, 40
	}
	h.HdrLen = h.CsumStart + uint16(hl)
	binary.BigEndian.PutUint16(p[16:], Sum(nil, pseudo(src, dst, 6, len(p))))
	return h, ip(src, dst, 6, p)
}

// Segment returns the sequence number and the data of a packet like [TCP]'s.
func Segment(p []byte) (seq uint32, data []byte) {
	if p[0]>>4 == 4 {
		p = p[20:]
	} else {
		p = p[40:]
	}
	return binary.BigEndian.Uint32(p[4:]), p[p[12]>>4*4:]
}

// ip puts an IP header without options in front of p.
func ip(src, dst netip.Addr, proto uint8, p []byte) []byte {
	var h []byte
	if src.Is4() {
		h = make([]byte, 12, 20)
		h[0], h[6], h[8], h[9] = 0x45, 0x40, 64, proto
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(p)))
		h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(h[10:], ^Sum(h, 0))
	} else {
		h = make([]byte, 8, 40)
		h[0], h[6], h[7] = 0x60, proto, 64
		binary.BigEndian.PutUint16(h[4:], uint16(len(p)))
		h = append(append(h, src.AsSlice()...), dst.AsSlice()...)
	}
	return append(h, p...)
}

// Sum adds the 16-bit words of p to a sum and folds it, RFC 1071 as written.
func Sum(p []byte, acc uint32) uint16 {
	for i := 0; i < len(p); i += 2 {
		acc += uint32(p[i]) << 8
		if i+1 < len(p) {
			acc += uint32(p[i+1])
		}
		acc = acc>>16 + acc&0xffff
	}
	return uint16(acc>>16 + acc&0xffff)
}

// pseudo sums the pseudo header of TCP, UDP and ICMPv6.
func pseudo(src, dst netip.Addr, proto uint8, length int) uint32 {
	return uint32(Sum(src.AsSlice(), uint32(proto))) + uint32(Sum(dst.AsSlice(), uint32(length)))
}

// putChecksum stores the checksum of p, whose own field is zero.
func putChecksum(field, p []byte, src, dst netip.Addr, proto uint8) {
	binary.BigEndian.PutUint16(field, ^Sum(p, pseudo(src, dst, proto, len(p))))
}
