// SPDX-License-Identifier: Apache-2.0

// Cutting of super-segments into packets with complete checksums.

package offload

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed is returned for a header that does not fit its packet.
var ErrMalformed = errors.New("offload: header does not fit the packet")

// A Splitter cuts one packet after another: [Splitter.Reset] takes a packet,
// [Splitter.Next] gives its pieces until [Splitter.More] is false. It keeps a
// reference to the packet in between, so that the cutting can stop where a batch
// of buffers is full and go on in the next one. The zero value has no packet.
type Splitter struct {
	hdr    Hdr
	link   []byte // header in front of each piece; see ResetFrame
	packet []byte // up to the end that the IP header says
	l      layers
	hl     int // bytes of all headers, which every piece repeats
	size   int // payload bytes of each piece but the last
	next   int // offset of the next piece's payload; len(packet) at the end
	done   bool
	cut    bool // there is more than one piece
}

// Reset takes a packet, of which h says what is to be done. The errors are
// [ErrMalformed] and [ErrShort]; the Splitter then has no packet.
func (s *Splitter) Reset(h Hdr, packet []byte) error {
	*s = Splitter{done: true}
	if h.GSOType == GSONone {
		if len(packet) == 0 {
			return ErrShort
		}
		if h.Flags&NeedsCsum != 0 && int(h.CsumStart)+int(h.CsumOffset)+2 > len(packet) {
			return ErrMalformed
		}
		*s = Splitter{hdr: h, packet: packet, next: 0}
		return nil
	}
	var l layers
	if !l.parse(packet) || l.fragment {
		return ErrMalformed
	}
	packet = packet[:l.end]
	hl := l.l4
	switch {
	case h.GSOType == GSOTCPv4 && !l.v6 && l.proto == protoTCP,
		h.GSOType == GSOTCPv6 && l.v6 && l.proto == protoTCP:
		if l.end-l.l4 < tcpLen {
			return ErrShort
		}
		off := int(packet[l.l4+12]>>4) * 4
		if off < tcpLen {
			return ErrMalformed
		}
		hl += off
	case h.GSOType == GSOUDPL4 && l.proto == protoUDP:
		hl += udpLen
	default:
		return ErrMalformed
	}
	if hl > len(packet) {
		return ErrShort
	}
	size := int(h.GSOSize)
	if size == 0 || size > len(packet)-hl {
		// Stacks mark control segments as GSO too, with a size of zero.
		size = len(packet) - hl
	}
	*s = Splitter{hdr: h, packet: packet, l: l, hl: hl, size: size, next: hl, cut: size < len(packet)-hl}
	return nil
}

// More reports whether there is another piece.
func (s *Splitter) More() bool { return s.packet != nil && !s.done }

// Left returns how many pieces are still to come.
func (s *Splitter) Left() int {
	switch {
	case !s.More():
		return 0
	case s.size == 0:
		return 1
	}
	return (len(s.packet) - s.next + s.size - 1) / s.size
}

// Next writes the next piece to dst and returns its length. With ErrShort, dst
// is too small and the piece is still to come.
func (s *Splitter) Next(dst []byte) (int, error) {
	if s.hdr.GSOType == GSONone {
		if len(dst) < len(s.packet) {
			return 0, ErrShort
		}
		n := copy(dst, s.packet)
		s.done = true
		if s.hdr.Flags&NeedsCsum != 0 {
			complete(dst[:n], &s.hdr)
		}
		return n, nil
	}
	// The only copy of the payload; the sum then reads it from the cache.
	chunk := s.packet[s.next:min(s.next+s.size, len(s.packet))]
	n := len(s.link) + s.hl + len(chunk)
	if len(dst) < n {
		return 0, ErrShort
	}
	copy(dst, s.link)
	dst = dst[len(s.link):n]
	copy(dst, s.packet[:s.hl])
	copy(dst[s.hl:], chunk)
	first, last := s.next == s.hl, s.next+len(chunk) == len(s.packet)
	s.finish(dst, first, last)
	s.next += len(chunk)
	s.done = last
	return n, nil
}

// finish makes the headers of dst those of the piece at s.next.
func (s *Splitter) finish(dst []byte, first, last bool) {
	index := 0
	if s.size > 0 {
		index = (s.next - s.hl) / s.size
	}
	if s.l.v6 {
		binary.BigEndian.PutUint16(dst[4:], uint16(len(dst)-ipv6Len))
	} else {
		binary.BigEndian.PutUint16(dst[2:], uint16(len(dst)))
		id := binary.BigEndian.Uint16(dst[4:])
		binary.BigEndian.PutUint16(dst[4:], id+uint16(index))
		putSum(dst[10:], 0)
		putSum(dst[10:], ^fold(sum(dst[:s.l.l4], 0)))
	}
	p := dst[s.l.l4:]
	field := p[16:18] // the checksum of TCP
	if s.l.proto == protoUDP {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)))
		field = p[6:8]
	} else {
		seq := binary.BigEndian.Uint32(p[4:])
		binary.BigEndian.PutUint32(p[4:], seq+uint32(s.next-s.hl))
		if !last {
			p[13] &^= tcpFIN | tcpPSH
		}
		if !first {
			p[13] &^= tcpCWR // said once, RFC 3168 §6.1.2
		}
		if p[13]&tcpURG != 0 { // the pointer counts from each piece
			up := int(binary.BigEndian.Uint16(p[18:])) - (s.next - s.hl)
			if up <= 0 {
				p[13] &^= tcpURG
			}
			binary.BigEndian.PutUint16(p[18:], uint16(max(up, 0)))
		}
	}
	putSum(field, 0)
	c := ^fold(sum(p, pseudo(s.l.addrs(dst), s.l.proto, len(p))))
	if c == 0 && s.l.proto == protoUDP {
		c = 0xffff // zero would say that there is none, RFC 768
	}
	putSum(field, c)
}

// complete finishes the checksum of a packet that h describes: its field holds
// the sum of the pseudo header, not complemented (virtio 1.2 §5.1.6.2).
func complete(p []byte, h *Hdr) {
	c := ^fold(sum(p[h.CsumStart:], 0))
	if c == 0 {
		// The other zero, equal in one's complement, for the sake of UDP.
		c = 0xffff
	}
	putSum(p[int(h.CsumStart)+int(h.CsumOffset):], c)
}

// Split cuts packet, of which h says what is to be done, into bufs from offset
// on, puts the pieces' lengths into sizes and returns how many there are. Every
// checksum of the pieces is complete. ErrShort is returned where a buffer is too
// small or there are too few of them, with what was written until then; a
// [Splitter] can stop and go on.
func Split(h Hdr, packet []byte, bufs [][]byte, sizes []int, offset int) (int, error) {
	var s Splitter
	if err := s.Reset(h, packet); err != nil {
		return 0, err
	}
	n := 0
	for ; s.More(); n++ {
		if n == len(bufs) {
			return n, ErrShort
		}
		var err error
		if sizes[n], err = s.Next(bufs[n][offset:]); err != nil {
			return n, err
		}
	}
	return n, nil
}
