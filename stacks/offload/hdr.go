// SPDX-License-Identifier: Apache-2.0

// The virtio_net_hdr that precedes every packet of an offloading link.

package offload

import (
	"encoding/binary"
	"errors"
)

// HdrLen is the size of an encoded [Hdr] in bytes: struct virtio_net_hdr of
// linux/virtio_net.h, without num_buffers.
const HdrLen = 10

// Bits of [Hdr].Flags.
const (
	NeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM: only the pseudo header is summed
	DataValid = 2 // VIRTIO_NET_HDR_F_DATA_VALID: checksums were verified
)

// Values of [Hdr].GSOType.
const (
	GSONone  = 0 // VIRTIO_NET_HDR_GSO_NONE: an ordinary packet
	GSOTCPv4 = 1 // VIRTIO_NET_HDR_GSO_TCPV4
	GSOTCPv6 = 4 // VIRTIO_NET_HDR_GSO_TCPV6
	GSOUDPL4 = 5 // VIRTIO_NET_HDR_GSO_UDP_L4
)

// ErrShort is returned where a buffer ends before the structure in it does.
var ErrShort = errors.New("offload: packet too short")

// A Hdr says what is left to be done to the packet behind it. The zero value
// belongs to a finished packet whose checksums nobody has looked at.
type Hdr struct {
	Flags      uint8
	GSOType    uint8
	HdrLen     uint16 // bytes of the headers that every segment repeats; a hint
	GSOSize    uint16 // payload bytes of each segment but the last
	CsumStart  uint16 // offset in the packet from which to sum, with NeedsCsum
	CsumOffset uint16 // offset from CsumStart at which the sum is stored
}

// Decode reads the first [HdrLen] bytes of b, little endian. The error is
// [ErrShort].
func (h *Hdr) Decode(b []byte) error {
	if len(b) < HdrLen {
		return ErrShort
	}
	h.Flags = b[0]
	h.GSOType = b[1]
	h.HdrLen = binary.LittleEndian.Uint16(b[2:])
	h.GSOSize = binary.LittleEndian.Uint16(b[4:])
	h.CsumStart = binary.LittleEndian.Uint16(b[6:])
	h.CsumOffset = binary.LittleEndian.Uint16(b[8:])
	return nil
}

// Encode writes h to the first [HdrLen] bytes of b, which must be there.
func (h Hdr) Encode(b []byte) {
	_ = b[HdrLen-1]
	b[0] = h.Flags
	b[1] = h.GSOType
	binary.LittleEndian.PutUint16(b[2:], h.HdrLen)
	binary.LittleEndian.PutUint16(b[4:], h.GSOSize)
	binary.LittleEndian.PutUint16(b[6:], h.CsumStart)
	binary.LittleEndian.PutUint16(b[8:], h.CsumOffset)
}
