// SPDX-License-Identifier: Apache-2.0

// The ioctls of netdevice(7) that change an interface.

package rtnetlink

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// setIoctl serves a command that changes something: net/core/dev_ioctl.c:dev_ifsioc
// and net/ipv4/devinet.c:devinet_ioctl.
func setIoctl(s stacks.State, set Setter, cmd uint32, ifr []byte) unix.Errno {
	switch cmd {
	case unix.SIOCSIFADDR, unix.SIOCSIFNETMASK, unix.SIOCSIFFLAGS, unix.SIOCSIFMTU, unix.SIOCSIFNAME, siocsiftxqlen:
	default:
		return unix.EPERM
	}
	if set == nil {
		return unix.EPERM
	}
	ifr[unix.IFNAMSIZ-1] = 0
	e := edit(s)
	ifc, alias := named(e.State, ifr)
	if ifc == nil {
		return unix.ENODEV
	}
	value := ifr[unix.IFNAMSIZ:]
	number := int(int32(binary.NativeEndian.Uint32(value)))
	var errno unix.Errno
	switch cmd {
	case unix.SIOCSIFADDR, unix.SIOCSIFNETMASK:
		if alias {
			return unix.EADDRNOTAVAIL // labels are not kept
		}
		if binary.NativeEndian.Uint16(value) != unix.AF_INET {
			return unix.EINVAL
		}
		a := netip.AddrFrom4([4]byte(value[4:8]))
		if cmd == unix.SIOCSIFADDR {
			errno = e.setAddr4(ifc, a)
		} else {
			errno = e.setMask4(ifc, a)
		}
	case unix.SIOCSIFFLAGS:
		e.setUp(ifc, binary.NativeEndian.Uint16(value)&unix.IFF_UP != 0)
	case unix.SIOCSIFMTU:
		if f := e.changeMTU(ifc, number); f != nil {
			errno = f.Errno
		}
	case unix.SIOCSIFNAME:
		errno = e.rename(ifc, attrString(value[:unix.IFNAMSIZ]))
	case siocsiftxqlen:
		if number < 0 {
			errno = unix.EINVAL
		}
	}
	if errno != 0 {
		return errno
	}
	if err := set(e.State, Origin{}); err != nil {
		return errnoOf(err)
	}
	return 0
}

// setAddr4 replaces the first IPv4 address; 0.0.0.0 only removes it. The prefix is
// that of the address's class, or the address alone on a point-to-point interface.
func (e *editor) setAddr4(ifc *stacks.Interface, a netip.Addr) unix.Errno {
	length := classLen(a)
	if length < 0 {
		return unix.EINVAL
	}
	if deviceOf(&stacks.Interface{Loop: ifc.Loop, Type: ifc.Type, Up: true}).flags&unix.IFF_POINTOPOINT != 0 {
		length = 32
	}
	for n, p := range ifc.Addrs {
		if p.Addr().Is4() {
			if p.Addr() == a {
				return 0
			}
			e.removeAddr(ifc, n)
			break
		}
	}
	if a.IsUnspecified() {
		return 0
	}
	e.addAddr(ifc, netip.PrefixFrom(a, length), stacks.AddrInfo{})
	return 0
}

// classLen is inet_abc_len: the network bits of the address's class, -1 if it is of
// none that interfaces have.
func classLen(a netip.Addr) int {
	switch b := a.As4()[0]; {
	case a.IsUnspecified():
		return 0
	case b < 0x80:
		return 8
	case b < 0xc0:
		return 16
	case b < 0xe0:
		return 24
	}
	return -1
}

// setMask4 gives the first IPv4 address another prefix.
func (e *editor) setMask4(ifc *stacks.Interface, mask netip.Addr) unix.Errno {
	m := binary.BigEndian.Uint32(mask.AsSlice())
	length := bits.LeadingZeros32(^m)
	if m<<length != 0 {
		return unix.EINVAL
	}
	for n, p := range ifc.Addrs {
		if !p.Addr().Is4() {
			continue
		}
		if p.Bits() != length {
			e.removeAddr(ifc, n)
			e.addAddr(ifc, netip.PrefixFrom(p.Addr(), length), stacks.AddrInfo{})
		}
		return 0
	}
	return unix.EADDRNOTAVAIL
}
