// SPDX-License-Identifier: Apache-2.0

// recvmsg(2) without garbage: it is called for every datagram of the host.

package nat

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A receiver is what recvmsg(2) needs besides the buffer. The kernel writes to
// it, and it must not be copied once it was used.
type receiver struct {
	hdr  unix.Msghdr
	iov  unix.Iovec
	name [unix.SizeofSockaddrInet6]byte
	oob  [64]byte

	local addr // with PKTINFO, the address that the message was sent to
	index int  // and the interface that it came in by
}

// recv takes one message from a non-blocking socket. size is that of each
// datagram in it, for UDP_GRO (udp(7)) gives several of one sender together.
func (r *receiver) recv(fd uintptr, buf []byte) (n, size int, from addrPort, err unix.Errno) {
	r.iov.Base = &buf[0]
	r.iov.SetLen(len(buf))
	r.hdr = unix.Msghdr{Name: &r.name[0], Namelen: uint32(len(r.name)), Iov: &r.iov, Control: &r.oob[0]}
	r.hdr.SetIovlen(1)
	r.hdr.SetControllen(len(r.oob))
	got, _, err := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&r.hdr)), 0)
	if err != 0 {
		return 0, 0, addrPort{}, err
	}
	n = int(got)
	size = n
	g := r.control(r.oob[:r.hdr.Controllen])
	if g > 0 && g < n {
		size = g
	}
	return n, size, readSockaddr(r.name[:r.hdr.Namelen]), 0
}

// control reads the control messages: UDP_GRO, an int, of which 0 means that there is
// none, and PKTINFO.
func (r *receiver) control(oob []byte) (gro int) {
	r.local, r.index = addr{}, 0
	head := unix.CmsgLen(0)
	for len(oob) >= head+4 {
		n := int(binary.NativeEndian.Uint64(oob)) // struct cmsghdr of 64-bit machines
		level, typ := binary.NativeEndian.Uint32(oob[8:]), binary.NativeEndian.Uint32(oob[12:])
		if n < head || n > len(oob) {
			break
		}
		switch data := oob[head:n]; {
		case level == unix.SOL_UDP && typ == unix.UDP_GRO && len(data) >= 4:
			gro = int(binary.NativeEndian.Uint32(data))
		case level == unix.SOL_IP && typ == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			r.index, r.local = int(binary.NativeEndian.Uint32(data)), addr4(data[8:12])
		case level == unix.SOL_IPV6 && typ == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			r.index, r.local = int(binary.NativeEndian.Uint32(data[16:])), addr6(data[:16])
		}
		oob = oob[min(unix.CmsgSpace(n-head), len(oob)):]
	}
	return gro
}

// readSockaddr reads a struct sockaddr_in or sockaddr_in6, without its zone. The
// zero AddrPort stands for any other.
func readSockaddr(b []byte) addrPort {
	if len(b) < 2 {
		return addrPort{}
	}
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET && len(b) >= 8:
		return netip.AddrPortFrom(addr4(b[4:8]), binary.BigEndian.Uint16(b[2:]))
	case family == unix.AF_INET6 && len(b) >= 24:
		return netip.AddrPortFrom(addr6(b[8:24]).Unmap(), binary.BigEndian.Uint16(b[2:]))
	}
	return addrPort{}
}
