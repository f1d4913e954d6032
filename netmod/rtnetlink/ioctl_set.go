// SPDX-License-Identifier: Apache-2.0

// The ioctls of netdevice(7) that change an interface.

package rtnetlink

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// setIoctl serves a command that changes something: net/core/dev_ioctl.c:dev_ifsioc
// and net/ipv4/devinet.c:devinet_ioctl.
func setIoctl(s stacks.State, set Setter, cmd uint32, ifr []byte) unix.Errno {
	switch cmd {
	case unix.SIOCSIFADDR, unix.SIOCSIFNETMASK, unix.SIOCSIFBRDADDR, unix.SIOCSIFDSTADDR,
		unix.SIOCSIFFLAGS, unix.SIOCSIFMTU, unix.SIOCSIFNAME, unix.SIOCSIFHWADDR, siocsiftxqlen:
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
	flags := uint32(binary.NativeEndian.Uint16(value))
	var errno unix.Errno
	switch cmd {
	case unix.SIOCSIFADDR, unix.SIOCSIFNETMASK, unix.SIOCSIFBRDADDR, unix.SIOCSIFDSTADDR:
		if binary.NativeEndian.Uint16(value) != unix.AF_INET {
			return unix.EINVAL
		}
		errno = e.setInet(ifc, cmd, ifr)
	case unix.SIOCSIFFLAGS:
		if !alias {
			e.setFlags(ifc, flags, ^uint32(0))
			break
		}
		clear(value[:8]) // flags, no address
		n := labelled(ifc, ifr)
		switch {
		case n < 0:
			errno = unix.EADDRNOTAVAIL
		case flags&unix.IFF_UP == 0:
			e.removeAddr(ifc, n)
		}
	case unix.SIOCSIFMTU:
		if f := e.changeMTU(ifc, number); f != nil {
			errno = f.Errno
		}
	case unix.SIOCSIFNAME:
		errno = e.rename(ifc, attrString(value[:unix.IFNAMSIZ]))
	case unix.SIOCSIFHWADDR: // dev_set_mac_address
		switch {
		case len(hwAddr(ifc)) == 0:
			errno = unix.EOPNOTSUPP
		case binary.NativeEndian.Uint16(value) != deviceOf(ifc).hwType:
			errno = unix.EINVAL
		default:
			errno = setMAC(ifc, value[2:])
		}
	case siocsiftxqlen:
		if number < 0 {
			return unix.EINVAL
		}
		setTxQueue(ifc, number)
	}
	if errno != 0 {
		return errno
	}
	if err := set(e.State, Origin{}); err != nil {
		return errnoOf(err)
	}
	return 0
}

// setTxQueue sets the length of the transmit queue, packets.
func setTxQueue(ifc *stacks.Interface, n int) {
	if ifc.TxQueue = n; n == 0 {
		ifc.TxQueue = -1
	}
}

// setInet changes the address with the label that an ifreq has, or adds one. It is
// then taken off and put on again, as in the kernel.
func (e *editor) setInet(ifc *stacks.Interface, cmd uint32, ifr []byte) unix.Errno {
	a := netip.AddrFrom4([4]byte(ifr[unix.IFNAMSIZ+4 : unix.IFNAMSIZ+8]))
	n := labelled(ifc, ifr)
	if n < 0 && cmd != unix.SIOCSIFADDR {
		return unix.EADDRNOTAVAIL
	}
	broadcasts := deviceOf(ifc).flags&unix.IFF_BROADCAST != 0
	if cmd == unix.SIOCSIFADDR {
		return e.setAddr4(ifc, attrString(ifr[:unix.IFNAMSIZ]), n, a)
	}
	p := ifc.Addrs[n]
	info, length := ifc.Info[p], p.Bits()
	was := info
	if !info.Told {
		info.Told, info.Scope = true, scopeOf(p.Addr())
	}
	switch cmd {
	case unix.SIOCSIFNETMASK:
		m := binary.BigEndian.Uint32(a.AsSlice())
		length = bits.LeadingZeros32(^m)
		if m<<length != 0 {
			return unix.EINVAL
		}
		if next := netip.PrefixFrom(p.Addr(), length); broadcasts && length < 31 && info.Broadcast == lastOf(p) {
			info.Broadcast = lastOf(next)
		}
	case unix.SIOCSIFBRDADDR:
		info.Broadcast = a
	case unix.SIOCSIFDSTADDR:
		if classLen(a) < 0 {
			return unix.EINVAL
		}
		if info.Peer = a; a == p.Addr() {
			info.Peer = netip.Addr{}
		}
	}
	if length == p.Bits() && info.Broadcast == was.Broadcast && info.Peer == was.Peer {
		return 0
	}
	e.removeAddr(ifc, n)
	e.addAddr(ifc, netip.PrefixFrom(p.Addr(), length), info)
	return 0
}

// setAddr4 replaces the n-th address, or adds one if n is negative; 0.0.0.0 only
// removes it. The prefix is that of the address's class, or the address alone on a
// point-to-point interface.
func (e *editor) setAddr4(ifc *stacks.Interface, label string, n int, a netip.Addr) unix.Errno {
	length := classLen(a)
	if length < 0 {
		return unix.EINVAL
	}
	info := stacks.AddrInfo{Told: true, Scope: scopeOf(a)}
	flags := deviceOf(ifc).flags
	switch {
	case flags&unix.IFF_POINTOPOINT != 0:
		length = 32
	case flags&unix.IFF_BROADCAST != 0 && length < 31:
		info.Broadcast = lastOf(netip.PrefixFrom(a, length))
	}
	if strings.Contains(label, ":") {
		info.Label = label
	}
	if n >= 0 {
		if ifc.Addrs[n].Addr() == a {
			return 0
		}
		e.removeAddr(ifc, n)
	}
	if a.IsUnspecified() {
		return 0
	}
	p := netip.PrefixFrom(a, length)
	for _, q := range ifc.Addrs {
		if q == p {
			return unix.EEXIST
		}
	}
	e.addAddr(ifc, p, info)
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
