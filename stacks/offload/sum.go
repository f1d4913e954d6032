// SPDX-License-Identifier: Apache-2.0

// The Internet checksum (RFC 1071).

package offload

import (
	"encoding/binary"
	"math/bits"
)

// sum adds b to the one's-complement sum acc, eight bytes at a time and in native
// (little) endian: by RFC 1071 §2(B) the byte order only has to be the same for
// what is added and what is stored. Every part but the last must have an even
// length.
func sum(b []byte, acc uint64) uint64 {
	var carry uint64
	for len(b) >= 32 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:]), carry)
		// Adding a carry may carry again, but not twice.
		acc, carry = bits.Add64(acc, 0, carry)
		acc += carry
		b = b[32:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc += carry
		b = b[8:]
	}
	if len(b) > 0 {
		var tail [8]byte
		copy(tail[:], b)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(tail[:]), 0)
		acc += carry
	}
	return acc
}

// fold reduces a sum to 16 bits, in the byte order of [sum].
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// putSum stores a checksum that came from [fold].
func putSum(b []byte, s uint16) { binary.LittleEndian.PutUint16(b, s) }

// pseudo sums the pseudo header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 8200
// §8.1): addresses, length of the upper layer, protocol.
func pseudo(addrs []byte, proto uint8, length int) uint64 {
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], uint32(length))
	b[7] = proto
	return sum(b[:], sum(addrs, 0))
}
