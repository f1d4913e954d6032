// SPDX-License-Identifier: Apache-2.0

// Verification of every checksum of a packet that came from a medium.

package offload

import "encoding/binary"

// Verify reports whether the lengths of an IP packet fit and the checksums of
// its IPv4, TCP, UDP, ICMP and ICMPv6 headers are right. A UDP checksum of zero
// is right over IPv4 (none was made, RFC 768) and wrong over IPv6 (RFC 8200
// §8.1). Of a fragment, and of other protocols, only the IP header is looked at;
// who reassembles fragments must verify the result.
func Verify(packet []byte) bool {
	var l layers
	if !l.parse(packet) {
		return false
	}
	if !l.v6 && fold(sum(packet[:l.l4], 0)) != 0xffff {
		return false
	}
	if l.fragment {
		return true
	}
	return verifyTransport(packet, &l)
}

// verifyTransport checks the checksum of a whole packet's transport header.
func verifyTransport(packet []byte, l *layers) bool {
	p := packet[l.l4:l.end]
	switch l.proto {
	case protoTCP:
		if len(p) < tcpLen {
			return false
		}
		if off := int(p[12]>>4) * 4; off < tcpLen || off > len(p) {
			return false
		}
	case protoUDP:
		if len(p) < udpLen {
			return false
		}
		n := int(binary.BigEndian.Uint16(p[4:]))
		if n < udpLen || n > len(p) {
			return false
		}
		if p[6] == 0 && p[7] == 0 {
			return !l.v6
		}
		p = p[:n] // bytes of IP after the datagram are not summed
	case protoICMP:
		if l.v6 {
			return true // ICMP for IPv4 says nothing over IPv6
		}
		return len(p) >= icmpLen && fold(sum(p, 0)) == 0xffff
	case protoICMPv6:
		if !l.v6 {
			return true
		}
		if len(p) < icmpLen {
			return false
		}
	default:
		return true
	}
	return fold(sum(p, pseudo(l.addrs(packet), l.proto, len(p)))) == 0xffff
}
