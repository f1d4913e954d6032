// SPDX-License-Identifier: Apache-2.0

// Where the headers of an IP packet are.

package offload

import "encoding/binary"

// Protocol numbers, IANA "Protocol Numbers".
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoAH       = 51
	protoICMPv6   = 58
	protoDstOpts  = 60
)

// Header sizes in bytes, without options.
const (
	ipv4Len = 20
	ipv6Len = 40
	tcpLen  = 20
	udpLen  = 8
	icmpLen = 4 // as far as the checksum
)

// Flags of a TCP header's 14th byte, RFC 9293 §3.1.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
	tcpURG
	tcpECE
	tcpCWR
)

// Layers is what a packet's headers say about themselves.
type layers struct {
	v6       bool
	plain    bool  // no IPv4 options, no IPv6 extension headers
	fragment bool  // a part of a packet: its transport header may be elsewhere
	proto    uint8 // of the transport header
	l4       int   // offset of the transport header
	end      int   // offset of the end, which may be before the buffer's
}

// addrs returns source and destination address as they lie in the packet.
func (l *layers) addrs(p []byte) []byte {
	if l.v6 {
		return p[8:ipv6Len]
	}
	return p[12:ipv4Len]
}

// parse finds the layers of p and reports whether its lengths fit. What follows
// the packet (padding of a short Ethernet frame) is left out.
func (l *layers) parse(p []byte) bool {
	if len(p) < ipv4Len {
		return false
	}
	switch p[0] >> 4 {
	case 4:
		return l.parse4(p)
	case 6:
		return l.parse6(p)
	}
	return false
}

func (l *layers) parse4(p []byte) bool {
	ihl := int(p[0]&15) * 4
	frag := binary.BigEndian.Uint16(p[6:])
	*l = layers{
		plain:    ihl == ipv4Len,
		fragment: frag&0x3fff != 0, // MF or an offset
		proto:    p[9],
		l4:       ihl,
		end:      int(binary.BigEndian.Uint16(p[2:])),
	}
	return ihl >= ipv4Len && l.end >= ihl && l.end <= len(p)
}

// parse6 walks the extension headers (RFC 8200 §4). One that it does not know is
// the transport protocol.
func (l *layers) parse6(p []byte) bool {
	if len(p) < ipv6Len {
		return false
	}
	*l = layers{
		v6:    true,
		plain: true,
		proto: p[6],
		l4:    ipv6Len,
		end:   ipv6Len + int(binary.BigEndian.Uint16(p[4:])),
	}
	if l.end > len(p) {
		return false
	}
	for {
		size := 0
		switch l.proto {
		case protoHopByHop, protoDstOpts, protoRouting, protoFragment, protoAH:
			if l.end-l.l4 < 8 {
				return false
			}
			size = int(p[l.l4+1])*8 + 8
		default:
			return true
		}
		switch l.proto {
		case protoRouting:
			// With segments left the pseudo header has another destination, and
			// the packet is not for us (RFC 8200 §4.4).
			if p[l.l4+3] != 0 {
				return false
			}
		case protoFragment:
			size = 8
			l.fragment = binary.BigEndian.Uint16(p[l.l4+2:])&0xfff9 != 0 // offset or M
		case protoAH:
			size = int(p[l.l4+1])*4 + 8 // RFC 4302 §2.2
		}
		l.plain = false
		if l.end-l.l4 < size {
			return false
		}
		l.proto = p[l.l4]
		l.l4 += size
		if l.fragment {
			return true // what follows is not a header, or not the whole one
		}
	}
}
