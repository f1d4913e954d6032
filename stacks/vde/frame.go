// SPDX-License-Identifier: Apache-2.0

// What plugs look at in an Ethernet frame.

package vde

import "encoding/binary"

// EtherTypes of 802.1Q and 802.1ad tags.
const (
	typeVLAN = 0x8100
	typeQinQ = 0x88a8
)

// A macKey is a MAC address, in the network's order from bit 47 on, and a VLAN in
// the bits above it.
type macKey uint64

// dstOf and srcOf read the addresses of a frame of at least etherLen bytes.
func dstOf(f []byte) macKey { return macKey(binary.BigEndian.Uint64(f) >> 16) }
func srcOf(f []byte) macKey { return macKey(binary.BigEndian.Uint64(f[4:]) & (1<<48 - 1)) }

// group tells whether an address is a multicast or broadcast address.
func (k macKey) group() bool { return k>>40&1 != 0 }

// vlanOf returns the VLAN of a frame's 802.1Q tag, in place for a macKey; 0 without
// a tag.
func vlanOf(f []byte) macKey {
	if len(f) >= etherLen+tagLen && binary.BigEndian.Uint16(f[12:]) == typeVLAN {
		return macKey(binary.BigEndian.Uint16(f[14:])&0xfff) << 48
	}
	return 0
}
