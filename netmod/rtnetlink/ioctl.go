// SPDX-License-Identifier: Apache-2.0

// The ioctls of netdevice(7), on sockets of whatever family.

package rtnetlink

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// Sizes of struct ifreq. The name and a struct sockaddr make 32 bytes, which is
// all of it for 32-bit programs; else struct ifmap with its longs is larger.
const (
	IfreqLen   = 40
	IfreqLen32 = 32
)

// Commands of linux/sockios.h that x/sys does not name.
const (
	siocgifslave  = 0x8929
	siocsifslave  = 0x8930
	siocgifcount  = 0x8938
	siocgifpflags = 0x8935
	siocsifpflags = 0x8934
	siocgifbr     = 0x8940
	siocsifbr     = 0x8941
	siocsiftxqlen = 0x8943
	siocgskns     = 0x894c
	siocgarp      = 0x8954
	siocgrarp     = 0x8961
	siocgifvlan   = 0x8982
	siocsifvlan   = 0x8983
	siocbondFirst = 0x8990
	siocbondLast  = 0x8995
	siocbrFirst   = 0x89a0
	siocbrLast    = 0x89a3
	siocshwtstamp = 0x89b0
	siocghwtstamp = 0x89b1
	siocPrivate   = 0x89f0
	siocgiwname   = 0x8b01 // linux/wireless.h
	siociwLast    = 0x8bff
)

// Ioctl serves one command on a struct ifreq. ifr is the program's copy,
// [IfreqLen] or [IfreqLen32] bytes long, and is changed in place; n is how many
// bytes of it to write back to the program: 0 if nothing is to be.
//
// errno is 0 or what the kernel gives: ENODEV for an unknown device,
// EADDRNOTAVAIL where there is no IPv4 address, EPERM for commands that would
// change something and are not modelled, EOPNOTSUPP for what only drivers serve
// (wireless extensions, MII, bonding), ENOTTY for what is no command of network
// devices, or none of a socket of the family: IPv4 addresses are those of AF_INET and
// AF_PACKET sockets. SIOCGIFCONF has no ifreq, see [Ifconf]; that of SIOCETHTOOL is a
// pointer, see [Ethtool].
//
// set, if not nil, is told what SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFBRDADDR,
// SIOCSIFDSTADDR, SIOCSIFFLAGS, SIOCSIFMTU, SIOCSIFNAME and SIOCSIFTXQLEN make of s;
// without it they give EPERM too.
func Ioctl(s stacks.State, set Setter, family int, cmd uint32, ifr []byte) (n int, errno unix.Errno) {
	if len(ifr) < IfreqLen32 {
		return 0, unix.EFAULT
	}
	if ofInet(cmd) && family != unix.AF_INET && (family != unix.AF_PACKET || cmd == siocgifpflags || cmd == siocsifpflags) {
		return 0, unix.ENOTTY
	}
	if changes(cmd) {
		return 0, setIoctl(s, set, cmd, ifr)
	}
	if errno := classify(cmd); errno != 0 {
		return 0, errno
	}
	ifr[unix.IFNAMSIZ-1] = 0 // as the kernel does before it looks
	if cmd == unix.SIOCGIFNAME {
		ifc := byIndex(s, int(int32(binary.NativeEndian.Uint32(ifr[unix.IFNAMSIZ:]))))
		if ifc == nil {
			return 0, unix.ENODEV
		}
		ifr[copy(ifr[:unix.IFNAMSIZ-1], ifc.Name)] = 0
		return len(ifr), 0
	}

	ifc, _ := named(s, ifr)
	if ifc == nil {
		return 0, unix.ENODEV
	}
	value := ifr[unix.IFNAMSIZ:]
	switch cmd {
	case unix.SIOCGIFADDR, unix.SIOCGIFDSTADDR, unix.SIOCGIFBRDADDR, unix.SIOCGIFNETMASK:
		n := labelled(ifc, ifr)
		if n < 0 {
			return 0, unix.EADDRNOTAVAIL
		}
		inetAddr(value, cmd, ifc, ifc.Addrs[n])
	case unix.SIOCGIFFLAGS:
		binary.NativeEndian.PutUint16(value, uint16(deviceOf(ifc).flags))
	case unix.SIOCGIFINDEX:
		binary.NativeEndian.PutUint32(value, uint32(ifc.Index))
	case unix.SIOCGIFMETRIC:
		binary.NativeEndian.PutUint32(value, 0)
	case unix.SIOCGIFMTU:
		binary.NativeEndian.PutUint32(value, uint32(ifc.MTU))
	case unix.SIOCGIFTXQLEN:
		binary.NativeEndian.PutUint32(value, deviceOf(ifc).txqlen)
	case unix.SIOCETHTOOL:
		return 0, unix.EOPNOTSUPP // without its own structure
	case unix.SIOCGIFHWADDR:
		binary.NativeEndian.PutUint16(value, deviceOf(ifc).hwType)
		if mac := hwAddr(ifc); len(mac) > 0 {
			copy(value[2:16], mac)
		} else {
			clear(value[2:16])
		}
	case unix.SIOCGIFMAP:
		clear(value[:len(value)-3]) // no memory, irq, dma or port; three bytes of padding
	case siocgifslave, siocgifpflags:
		return 0, unix.EINVAL
	default:
		return 0, unix.EOPNOTSUPP
	}
	return len(ifr), 0
}

// named finds the interface that an ifreq is about; eth0:1 is an alias of eth0.
func named(s stacks.State, ifr []byte) (_ *stacks.Interface, alias bool) {
	label, _, _ := bytes.Cut(ifr[:unix.IFNAMSIZ], []byte{0})
	name, _, alias := bytes.Cut(label, []byte{':'})
	return byName(s, string(name)), alias
}

// changes reports whether a command alters devices or tables, for which the
// kernel wants CAP_NET_ADMIN first of all.
func changes(cmd uint32) bool {
	switch cmd {
	case unix.SIOCADDRT, unix.SIOCDELRT, unix.SIOCSIFLINK, unix.SIOCSIFFLAGS, unix.SIOCSIFADDR,
		unix.SIOCSIFDSTADDR, unix.SIOCSIFBRDADDR, unix.SIOCSIFNETMASK, unix.SIOCSIFMETRIC,
		unix.SIOCSIFMEM, unix.SIOCSIFMTU, unix.SIOCSIFNAME, unix.SIOCSIFHWADDR, unix.SIOCSIFENCAP,
		siocsifslave, unix.SIOCADDMULTI, unix.SIOCDELMULTI, siocsifpflags, unix.SIOCDIFADDR,
		unix.SIOCSIFHWBROADCAST, siocsifbr, siocsiftxqlen, siocgskns, unix.SIOCDARP, unix.SIOCSARP,
		unix.SIOCDRARP, unix.SIOCSRARP, unix.SIOCSIFMAP, siocsifvlan, unix.SIOCADDDLCI, unix.SIOCDELDLCI,
		siocshwtstamp:
		return true
	}
	return cmd >= siocbrFirst && cmd <= siocbrLast ||
		cmd >= siocbondFirst && cmd <= siocbondLast && cmd < siocbondLast-1 ||
		cmd >= siocgiwname-1 && cmd <= siociwLast && cmd&1 == 0 // even wireless commands set
}

// classify returns the errno of commands that need no device; 0: look for it.
func classify(cmd uint32) unix.Errno {
	switch cmd {
	case unix.SIOCGIFNAME, unix.SIOCGIFFLAGS, unix.SIOCGIFADDR, unix.SIOCGIFDSTADDR, unix.SIOCGIFBRDADDR,
		unix.SIOCGIFNETMASK, unix.SIOCGIFMETRIC, unix.SIOCGIFMTU, unix.SIOCGIFHWADDR, unix.SIOCGIFINDEX,
		unix.SIOCGIFTXQLEN, unix.SIOCGIFMAP, siocgifslave, unix.SIOCETHTOOL, siocghwtstamp,
		unix.SIOCGMIIPHY, unix.SIOCGMIIREG, unix.SIOCSMIIREG, unix.SIOCWANDEV:
		return 0
	case siocgifpflags:
		return unix.EINVAL
	case siocgifbr, siocgifvlan:
		return unix.ENOPKG // modules that are not there
	case siocgarp:
		return unix.ENXIO // no such entry, arp(7)
	case siocgrarp:
		return unix.EINVAL
	case unix.SIOCRTMSG:
		return unix.EINVAL
	}
	if cmd >= siocPrivate && cmd < siocPrivate+16 || cmd >= siocbondFirst && cmd <= siocbondLast ||
		cmd >= siocgiwname-1 && cmd <= siociwLast {
		return 0
	}
	return unix.ENOTTY
}

// ofInet reports whether a command is served by AF_INET sockets, not by every socket:
// net/ipv4/af_inet.c:inet_ioctl.
func ofInet(cmd uint32) bool {
	switch cmd {
	case unix.SIOCGIFADDR, unix.SIOCSIFADDR, unix.SIOCGIFBRDADDR, unix.SIOCSIFBRDADDR, unix.SIOCGIFNETMASK,
		unix.SIOCSIFNETMASK, unix.SIOCGIFDSTADDR, unix.SIOCSIFDSTADDR, siocgifpflags, siocsifpflags,
		siocgarp, unix.SIOCDARP, unix.SIOCSARP, unix.SIOCADDRT, unix.SIOCDELRT, unix.SIOCRTMSG:
		return true
	}
	return false
}

// labelled is the index of the IPv4 address that an ifreq is about, -1 if there is
// none: the one with its label, and of several the one that the ifreq holds itself.
func labelled(ifc *stacks.Interface, ifr []byte) int {
	label := attrString(ifr[:unix.IFNAMSIZ])
	value := ifr[unix.IFNAMSIZ:]
	first := -1
	for n, p := range ifc.Addrs {
		if !p.Addr().Is4() || labelOf(ifc, p) != label {
			continue
		}
		if binary.NativeEndian.Uint16(value) == unix.AF_INET && p.Addr() == netip.AddrFrom4([4]byte(value[4:8])) {
			return n
		}
		if first < 0 {
			first = n
		}
	}
	return first
}

// inetAddr writes the struct sockaddr_in that cmd asks for.
func inetAddr(value []byte, cmd uint32, ifc *stacks.Interface, p netip.Prefix) {
	clear(value[:16])
	binary.NativeEndian.PutUint16(value, unix.AF_INET)
	info, a := ifc.Info[p], p.Addr()
	switch cmd {
	case unix.SIOCGIFDSTADDR:
		if info.Peer.IsValid() {
			a = info.Peer
		}
	case unix.SIOCGIFBRDADDR:
		if a = info.Broadcast; !a.IsValid() {
			return // 0.0.0.0
		}
	case unix.SIOCGIFNETMASK:
		binary.BigEndian.PutUint32(value[4:], maskOf(p))
		return
	}
	copy(value[4:8], a.AsSlice())
}

// maskOf is the netmask of an IPv4 prefix, in host byte order.
func maskOf(p netip.Prefix) uint32 { return uint32(^uint64(0) << (32 - p.Bits())) }

// Ifconf returns the array of struct ifreq that SIOCGIFCONF tells: one for each
// IPv4 address of an interface, each of them size bytes ([IfreqLen] or
// [IfreqLen32]), and only whole ones up to room bytes. The program's ifc_len
// becomes the length of the result. A null buffer asks for that length alone,
// whatever ifc_len says: then room is negative, and nothing is cut.
func Ifconf(s stacks.State, size, room int) []byte {
	var out []byte
	for i := range s.Interfaces {
		ifc := &s.Interfaces[i]
		for _, p := range ifc.Addrs {
			if !p.Addr().Is4() {
				continue
			}
			if room >= 0 && len(out)+size > room {
				return out
			}
			entry := make([]byte, size)
			copy(entry[:unix.IFNAMSIZ-1], labelOf(ifc, p))
			inetAddr(entry[unix.IFNAMSIZ:], unix.SIOCGIFADDR, ifc, p)
			out = append(out, entry...)
		}
	}
	return out
}
