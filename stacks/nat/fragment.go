// SPDX-License-Identifier: Apache-2.0

// Cutting datagrams that are larger than a served link's MTU.

package nat

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// fragments cuts p, a complete packet of the NAT's own without options or extension
// headers, into packets of at most mtu bytes, each with room in front of it; RFC 791
// §3.2 and RFC 8200 §4.5. emit is called with each, room first.
func fragments(p []byte, mtu, room int, id uint32, emit func([]byte)) {
	if p[0]>>4 == 6 {
		const hlen = header.IPv6MinimumSize + header.IPv6FragmentHeaderSize
		rest := p[header.IPv6MinimumSize:]
		step := (mtu - hlen) &^ 7
		for at := 0; at < len(rest); at += step {
			part := rest[at:min(at+step, len(rest))]
			b := make([]byte, room+hlen+len(part))
			h := b[room:]
			copy(h, p[:header.IPv6MinimumSize])
			binary.BigEndian.PutUint16(h[4:], uint16(header.IPv6FragmentHeaderSize+len(part)))
			h[40], h[6] = h[6], uint8(header.IPv6FragmentExtHdrIdentifier)
			more := uint16(0)
			if at+len(part) < len(rest) {
				more = 1
			}
			binary.BigEndian.PutUint16(h[42:], uint16(at)|more)
			binary.BigEndian.PutUint32(h[44:], id)
			copy(h[hlen:], part)
			emit(b)
		}
		return
	}
	const hlen = header.IPv4MinimumSize
	rest := p[hlen:]
	step := (mtu - hlen) &^ 7
	for at := 0; at < len(rest); at += step {
		part := rest[at:min(at+step, len(rest))]
		b := make([]byte, room+hlen+len(part))
		h := header.IPv4(b[room:])
		copy(h, p[:hlen])
		h.SetTotalLength(uint16(hlen + len(part)))
		h.SetID(uint16(id))
		flags := uint8(0)
		if at+len(part) < len(rest) {
			flags = header.IPv4FlagMoreFragments
		}
		h.SetFlagsFragmentOffset(flags, uint16(at))
		h.SetChecksum(0)
		h.SetChecksum(^h.CalculateChecksum())
		copy(h[hlen:], part)
		emit(b)
	}
}
