// SPDX-License-Identifier: Apache-2.0

// Datagrams, and what travels with them.

package kernel

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// A packet is a socket of datagrams.
type packet struct{ socket }

// tellAll asks the kernel to tell of each datagram where it was sent to, its TTL and
// its TOS. A family that has none of these does not say so.
func (k *packet) tellAll() {
	for _, o := range []struct{ family, level, name int }{
		{unix.AF_INET, unix.IPPROTO_IP, unix.IP_PKTINFO},
		{unix.AF_INET, unix.IPPROTO_IP, unix.IP_RECVTTL},
		{unix.AF_INET, unix.IPPROTO_IP, unix.IP_RECVTOS},
		{unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO},
		{unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT},
		{unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS},
	} {
		if o.family == k.family {
			_ = k.do(func(fd int) error { return unix.SetsockoptInt(fd, o.level, o.name, 1) })
		}
	}
}

// SendMsg sends one datagram, see [stacks.PacketSocket].
func (k *packet) SendMsg(p []byte, m stacks.Message) error {
	if m.Marked { // it takes privileges over the namespace, as here only the helper has
		return unix.EPERM
	}
	var to unix.Sockaddr
	if m.Peer.IsValid() {
		to = k.sockaddr(m.Peer)
	}
	oob := k.control(m)
	return k.do(func(fd int) error {
		_, err := unix.SendmsgN(fd, p, oob, to, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return err
	})
}

// control encodes what m says beside the peer.
func (k *packet) control(m stacks.Message) (oob []byte) {
	four := k.family == unix.AF_INET
	put := func(level, typ int, v []byte) { oob = append(oob, cmsg(level, typ, v)...) }
	if m.TTL > 0 {
		if four {
			put(unix.IPPROTO_IP, unix.IP_TTL, int32Bytes(m.TTL))
		} else {
			put(unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, int32Bytes(m.TTL))
		}
	}
	if m.TOS > 0 {
		if four {
			put(unix.IPPROTO_IP, unix.IP_TOS, int32Bytes(m.TOS))
		} else {
			put(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, int32Bytes(m.TOS))
		}
	}
	if m.Local.IsValid() || m.IfIndex != 0 {
		if four {
			i := unix.Inet4Pktinfo{Ifindex: int32(m.IfIndex)}
			if ip := m.Local.Unmap(); ip.Is4() {
				i.Spec_dst = ip.As4()
			}
			put(unix.IPPROTO_IP, unix.IP_PKTINFO, unsafe.Slice((*byte)(unsafe.Pointer(&i)), unsafe.Sizeof(i)))
		} else {
			i := unix.Inet6Pktinfo{Ifindex: uint32(m.IfIndex)}
			if m.Local.IsValid() {
				i.Addr = m.Local.As16()
			}
			put(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unsafe.Slice((*byte)(unsafe.Pointer(&i)), unsafe.Sizeof(i)))
		}
	}
	if m.Segment > 0 {
		size := uint16(m.Segment)
		put(unix.IPPROTO_UDP, unix.UDP_SEGMENT, unsafe.Slice((*byte)(unsafe.Pointer(&size)), 2))
	}
	return oob
}

func int32Bytes(v int) []byte {
	i := int32(v)
	return unsafe.Slice((*byte)(unsafe.Pointer(&i)), 4)
}

// cmsg encodes a control message.
func cmsg(level, typ int, v []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(v)))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = int32(level), int32(typ)
	h.SetLen(unix.CmsgLen(len(v)))
	copy(b[unix.CmsgLen(0):], v)
	return b
}

// controlRoom holds every control message that tellAll asks for, bytes.
const controlRoom = 256

// RecvMsg takes a datagram, see [stacks.PacketSocket].
func (k *packet) RecvMsg(p []byte, peek bool) (n, size int, m stacks.Message, err error) {
	flags := unix.MSG_TRUNC | unix.MSG_DONTWAIT
	if peek {
		flags |= unix.MSG_PEEK
	}
	var oob [controlRoom]byte
	var oobn int
	var from unix.Sockaddr
	err = k.do(func(fd int) (err error) {
		size, oobn, _, from, err = unix.Recvmsg(fd, p, oob[:], flags)
		return err
	})
	if err != nil {
		return 0, 0, m, err
	}
	m = stacks.Message{Peer: addrPort(from), TTL: -1, TOS: -1}
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, 0, m, err
	}
	for _, c := range cmsgs {
		describe(&m, c)
	}
	return min(size, len(p)), size, m, nil
}

// describe adds what a control message says to m.
func describe(m *stacks.Message, c unix.SocketControlMessage) {
	number := func() int {
		if len(c.Data) < 4 {
			return -1
		}
		return int(*(*int32)(unsafe.Pointer(&c.Data[0])))
	}
	switch [2]int32{c.Header.Level, c.Header.Type} {
	case [2]int32{unix.IPPROTO_IP, unix.IP_TTL}, [2]int32{unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT}:
		m.TTL = number()
	case [2]int32{unix.IPPROTO_IP, unix.IP_TOS}:
		if len(c.Data) > 0 {
			m.TOS = int(c.Data[0])
		}
	case [2]int32{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}:
		m.TOS = number()
	case [2]int32{unix.IPPROTO_IP, unix.IP_PKTINFO}:
		if len(c.Data) >= unix.SizeofInet4Pktinfo {
			i := (*unix.Inet4Pktinfo)(unsafe.Pointer(&c.Data[0]))
			m.Local, m.IfIndex = netip.AddrFrom4(i.Addr), int(i.Ifindex)
		}
	case [2]int32{unix.IPPROTO_IPV6, unix.IPV6_PKTINFO}:
		if len(c.Data) >= unix.SizeofInet6Pktinfo {
			i := (*unix.Inet6Pktinfo)(unsafe.Pointer(&c.Data[0]))
			m.Local, m.IfIndex = netip.AddrFrom16(i.Addr), int(i.Ifindex)
		}
	}
}
