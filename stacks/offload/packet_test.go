// SPDX-License-Identifier: Apache-2.0

// Packets for the tests of this package, and a checksum summed the slow way.

package offload

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
)

// refSum is RFC 1071 as written: 16-bit words, big endian.
func refSum(p []byte, acc uint32) uint16 {
	for i := 0; i < len(p); i += 2 {
		acc += uint32(p[i]) << 8
		if i+1 < len(p) {
			acc += uint32(p[i+1])
		}
		acc = acc>>16 + acc&0xffff
	}
	return uint16(acc>>16 + acc&0xffff)
}

// refTransport returns what the words of a transport header and its pseudo
// header sum up to: 0xffff if the checksum is right.
func refTransport(addrs, p []byte, proto uint8) uint16 {
	acc := uint32(refSum(addrs, uint32(proto)))
	return refSum(p, acc+uint32(len(p)>>16)+uint32(len(p)&0xffff))
}

// A spec says what a TCP packet looks like.
type spec struct {
	v6      bool
	src     byte // last byte of the source address
	port    uint16
	seq     uint32
	ack     uint32
	flags   byte
	window  uint16
	tos     byte
	ttl     byte
	options []byte // of TCP, a multiple of four bytes
	id      uint16
	data    []byte
}

// packet makes a packet with complete checksums.
func (s spec) packet() []byte {
	tcp := make([]byte, tcpLen, tcpLen+len(s.options)+len(s.data))
	binary.BigEndian.PutUint16(tcp, s.port)
	binary.BigEndian.PutUint16(tcp[2:], 443)
	binary.BigEndian.PutUint32(tcp[4:], s.seq)
	binary.BigEndian.PutUint32(tcp[8:], s.ack)
	tcp[12] = byte((tcpLen + len(s.options)) / 4 << 4)
	tcp[13] = s.flags
	binary.BigEndian.PutUint16(tcp[14:], s.window)
	tcp = append(append(tcp, s.options...), s.data...)
	return transport(s.v6, s.src, s.tos, s.ttl, s.id, protoTCP, 16, tcp)
}

// transport puts an IP header in front of p and completes both checksums; field
// is where p's is, or negative.
func transport(v6 bool, src, tos, ttl byte, id uint16, proto uint8, field int, p []byte) []byte {
	var h []byte
	if v6 {
		h = make([]byte, ipv6Len)
		h[0], h[1] = 0x60|tos>>4, tos<<4
		binary.BigEndian.PutUint16(h[4:], uint16(len(p)))
		h[6], h[7] = proto, ttl
		h[8], h[23], h[24], h[39] = 0xfd, src, 0xfd, 99
	} else {
		h = make([]byte, ipv4Len)
		h[0], h[1] = 0x45, tos
		binary.BigEndian.PutUint16(h[2:], uint16(ipv4Len+len(p)))
		binary.BigEndian.PutUint16(h[4:], id)
		h[6], h[8], h[9] = 0x40, ttl, proto
		h[12], h[15], h[16], h[19] = 10, src, 10, 99
		binary.BigEndian.PutUint16(h[10:], ^refSum(h, 0))
	}
	b := append(h, p...)
	if field >= 0 {
		l4 := b[len(h):]
		addrs := b[12:ipv4Len]
		if v6 {
			addrs = b[8:ipv6Len]
		}
		if proto == protoICMP {
			binary.BigEndian.PutUint16(l4[field:], ^refSum(l4, 0))
		} else {
			binary.BigEndian.PutUint16(l4[field:], ^refTransport(addrs, l4, proto))
		}
	}
	return b
}

// data returns n bytes that differ.
func data(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// buffers returns n buffers of size bytes and their sizes.
func buffers(n, size int) ([][]byte, []int) {
	bufs := make([][]byte, n)
	for i := range bufs {
		bufs[i] = make([]byte, size)
	}
	return bufs, make([]int, n)
}

// refVerify is Verify with the slow sum, for packets without extension headers.
func refVerify(p []byte) bool {
	if len(p) < 1 {
		return false
	}
	var addrs, l4 []byte
	var proto uint8
	v6 := false
	switch p[0] >> 4 {
	case 4:
		if len(p) < ipv4Len {
			return false
		}
		ihl, total := int(p[0]&15)*4, int(binary.BigEndian.Uint16(p[2:]))
		if ihl < ipv4Len || total < ihl || total > len(p) || refSum(p[:ihl], 0) != 0xffff {
			return false
		}
		if p[6]&0x3f != 0 || p[7] != 0 {
			return true
		}
		addrs, l4, proto = p[12:20], p[ihl:total], p[9]
	case 6:
		if len(p) < ipv6Len {
			return false
		}
		total := ipv6Len + int(binary.BigEndian.Uint16(p[4:]))
		if total > len(p) {
			return false
		}
		addrs, l4, proto, v6 = p[8:40], p[40:total], p[6], true
	default:
		return false
	}
	switch {
	case proto == protoTCP:
		return len(l4) >= tcpLen && l4[12]>>4 >= 5 && int(l4[12]>>4)*4 <= len(l4) && refTransport(addrs, l4, proto) == 0xffff
	case proto == protoUDP:
		if len(l4) < udpLen {
			return false
		}
		n := int(binary.BigEndian.Uint16(l4[4:]))
		if n < udpLen || n > len(l4) {
			return false
		}
		if bytes.Equal(l4[6:8], []byte{0, 0}) {
			return !v6
		}
		return refTransport(addrs, l4[:n], proto) == 0xffff
	case proto == protoICMP && !v6:
		return len(l4) >= 4 && refSum(l4, 0) == 0xffff
	case proto == protoICMPv6 && v6:
		return len(l4) >= 4 && refTransport(addrs, l4, proto) == 0xffff
	}
	return true
}
