// SPDX-License-Identifier: Apache-2.0

// Packets behind an Ethernet header.

package offload

import "encoding/binary"

// etherLen is the size of an Ethernet II header in bytes.
const etherLen = 14

// IsIP reports whether a frame's EtherType is that of the IP version behind it.
func IsIP(frame []byte) bool { return linkLen(frame) == etherLen }

// linkLen returns how many bytes stand in front of a frame's IP packet: Ethernet's
// header, and the tags of VLANs in it (IEEE 802.1Q, 802.1ad). 0: there is no such packet.
func linkLen(frame []byte) int {
	for n := etherLen; len(frame) >= n+ipv4Len; n += 4 {
		switch t, v := binary.BigEndian.Uint16(frame[n-2:]), frame[n]>>4; {
		case t == 0x0800 && v == 4, t == 0x86dd && v == 6:
			return n
		case t != 0x8100 && t != 0x88a8:
			return 0
		}
	}
	return 0
}

// ResetFrame is [Splitter.Reset] for an Ethernet frame: pieces begin with its link
// header, tags too, and what h says counts from the frame's start.
func (s *Splitter) ResetFrame(h Hdr, frame []byte) error {
	if h.GSOType == GSONone {
		return s.Reset(h, frame)
	}
	n := linkLen(frame)
	if n == 0 {
		*s = Splitter{done: true}
		return ErrMalformed
	}
	err := s.Reset(h, frame[n:])
	s.link = frame[:n]
	return err
}
