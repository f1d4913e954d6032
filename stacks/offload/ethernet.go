// SPDX-License-Identifier: Apache-2.0

// Packets behind an Ethernet header.

package offload

import "encoding/binary"

// etherLen is the size of an Ethernet II header in bytes.
const etherLen = 14

// IsIP reports whether a frame's EtherType is that of the IP version behind it.
func IsIP(frame []byte) bool {
	if len(frame) < etherLen+ipv4Len {
		return false
	}
	t, v := binary.BigEndian.Uint16(frame[12:]), frame[etherLen]>>4
	return t == 0x0800 && v == 4 || t == 0x86dd && v == 6
}

// ResetFrame is [Splitter.Reset] for an Ethernet frame: pieces begin with its link
// header, and what h says counts from the frame's start.
func (s *Splitter) ResetFrame(h Hdr, frame []byte) error {
	if h.GSOType == GSONone {
		return s.Reset(h, frame)
	}
	if !IsIP(frame) {
		*s = Splitter{done: true}
		return ErrMalformed
	}
	err := s.Reset(h, frame[etherLen:])
	s.link = frame[:etherLen]
	return err
}
