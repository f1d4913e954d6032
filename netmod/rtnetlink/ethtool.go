// SPDX-License-Identifier: Apache-2.0

// SIOCETHTOOL, as far as a TUN device answers it.

package rtnetlink

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// Commands of linux/ethtool.h that are answered.
const (
	ethtoolGSet       = 0x01
	ethtoolGDrvInfo   = 0x03
	ethtoolGMsgLvl    = 0x07
	ethtoolGLink      = 0x0a
	ethtoolGTSInfo    = 0x41
	ethtoolGLinkSet   = 0x4c // ETHTOOL_GLINKSETTINGS
	ethtoolDrvInfoLen = 196
)

// tunSpeed is what a TUN device says of itself, Mb/s.
const tunSpeed = 10000

// EthtoolLen is how many bytes of the program's structure are needed to know what it
// asks for: the command, and of link settings how large they are.
const EthtoolLen = 16

// Ethtool answers a request for the device that an ifreq names: in holds the first
// [EthtoolLen] bytes of the structure that it points to, out is what to write there.
// Errors: ENODEV, EOPNOTSUPP for what is not answered; a loopback device answers the
// state of its link only.
func Ethtool(s stacks.State, ifr, in []byte) (out []byte, errno unix.Errno) {
	if len(ifr) < unix.IFNAMSIZ || len(in) < EthtoolLen {
		return nil, unix.EFAULT
	}
	ifc := byName(s, attrString(ifr[:unix.IFNAMSIZ]))
	if ifc == nil {
		return nil, unix.ENODEV
	}
	cmd := binary.NativeEndian.Uint32(in)
	if cmd != ethtoolGLink && cmd != ethtoolGTSInfo && ifc.Loop {
		return nil, unix.EOPNOTSUPP
	}
	word := func(n int, at int, v uint32) []byte {
		b := make([]byte, n)
		binary.NativeEndian.PutUint32(b, cmd)
		binary.NativeEndian.PutUint32(b[at:], v)
		return b
	}
	switch cmd {
	case ethtoolGLink:
		link := uint32(0)
		if ifc.Up {
			link = 1
		}
		return word(8, 4, link), 0
	case ethtoolGMsgLvl:
		return word(8, 4, 0), 0
	case ethtoolGSet:
		b := word(44, 0, cmd)
		binary.NativeEndian.PutUint16(b[12:], tunSpeed)
		b[14] = 1 // full duplex
		return b, 0
	case ethtoolGDrvInfo:
		b := word(ethtoolDrvInfoLen, 0, cmd)
		copy(b[4:], "tun")   // driver
		copy(b[36:], "1.6")  // version
		copy(b[100:], "tun") // bus_info
		return b, 0
	case ethtoolGTSInfo:
		// Time stamps of software, and no clock.
		b := word(44, 4, unix.SOF_TIMESTAMPING_TX_SOFTWARE|unix.SOF_TIMESTAMPING_RX_SOFTWARE|unix.SOF_TIMESTAMPING_SOFTWARE)
		binary.NativeEndian.PutUint32(b[8:], ^uint32(0))
		return b, 0
	case ethtoolGLinkSet:
		// The program asks twice: how many words the three masks of link modes
		// have, which is told as a negative number, then for them.
		const words = 4
		n := int(int8(in[15]))
		if n != words {
			b := word(48, 0, cmd)
			b[15] = byte(256 - words)
			return b, 0
		}
		b := word(48+3*4*words, 4, tunSpeed)
		b[8] = 1 // full duplex
		b[15] = words
		return b, 0
	}
	return nil, unix.EOPNOTSUPP
}
