// SPDX-License-Identifier: Apache-2.0

// Socket addresses in the target's memory, and bind, getsockname, getpeername.

package netmod

import (
	"encoding/binary"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

var native = binary.NativeEndian

// sockaddrMax is the size of struct sockaddr_storage, and the most that a call
// may pass (net/socket.c:move_addr_to_kernel).
const sockaddrMax = 128

// sin6LenRFC2133 is the size of a sockaddr_in6 without its scope, which the
// kernel takes as well.
const sin6LenRFC2133 = 24

// readSockaddr copies a sockaddr once. EINVAL for a length that is negative or
// too long, as move_addr_to_kernel.
func readSockaddr(c *intercept.Call, addr intercept.Addr, length int32) ([]byte, error) {
	if length < 0 || length > sockaddrMax {
		return nil, unix.EINVAL
	}
	if length == 0 {
		return nil, nil
	}
	sa := make([]byte, length)
	if err := c.ReadMem(addr, sa); err != nil {
		return nil, err
	}
	return sa, nil
}

func sockaddrFamily(sa []byte) int {
	if len(sa) < 2 {
		return unix.AF_UNSPEC
	}
	return int(native.Uint16(sa))
}

// parseSockaddr decodes an inet sockaddr for a socket of the given family. The
// zero AddrPort with a nil error is AF_UNSPEC.
func parseSockaddr(family int, sa []byte) (netip.AddrPort, error) {
	var none netip.AddrPort
	if len(sa) < 2 {
		return none, unix.EINVAL
	}
	switch f := sockaddrFamily(sa); {
	case f == unix.AF_UNSPEC:
		return none, nil
	case f == unix.AF_INET && family == unix.AF_INET:
		if len(sa) < unix.SizeofSockaddrInet4 {
			return none, unix.EINVAL
		}
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(sa[4:8])), binary.BigEndian.Uint16(sa[2:])), nil
	case f == unix.AF_INET6 && family == unix.AF_INET6:
		if len(sa) < sin6LenRFC2133 {
			return none, unix.EINVAL
		}
		a := netip.AddrFrom16([16]byte(sa[8:24]))
		if len(sa) >= unix.SizeofSockaddrInet6 && (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast()) {
			if zone := native.Uint32(sa[24:]); zone != 0 {
				a = a.WithZone(strconv.FormatUint(uint64(zone), 10))
			}
		}
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(sa[2:])), nil
	case f == unix.AF_INET && family == unix.AF_INET6:
		// An IPv4 sockaddr on an IPv6 socket: sendto takes it as the mapped
		// address (net/ipv6/udp.c:udpv6_sendmsg), the others refuse it.
		if len(sa) < unix.SizeofSockaddrInet4 {
			return none, unix.EINVAL
		}
		a := netip.AddrFrom16(netip.AddrFrom4([4]byte(sa[4:8])).As16())
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(sa[2:])), otherFamily(family, sa)
	default:
		return none, otherFamily(family, sa)
	}
}

// otherFamily is the errno for a sockaddr of another family: its length is judged
// first (net/ipv6/tcp_ipv6.c:tcp_v6_connect and others).
func otherFamily(family int, sa []byte) unix.Errno {
	if family == unix.AF_INET6 && len(sa) < sin6LenRFC2133 || len(sa) < unix.SizeofSockaddrInet4 {
		return unix.EINVAL
	}
	return unix.EAFNOSUPPORT
}

// encodeSockaddr writes a as a sockaddr of the socket's family. The zero AddrPort
// is the wildcard.
func encodeSockaddr(family int, a netip.AddrPort) []byte {
	if family == unix.AF_INET {
		sa := make([]byte, unix.SizeofSockaddrInet4)
		native.PutUint16(sa, unix.AF_INET)
		binary.BigEndian.PutUint16(sa[2:], a.Port())
		if ip := a.Addr().Unmap(); ip.Is4() {
			b := ip.As4()
			copy(sa[4:], b[:])
		}
		return sa
	}
	sa := make([]byte, unix.SizeofSockaddrInet6)
	native.PutUint16(sa, unix.AF_INET6)
	binary.BigEndian.PutUint16(sa[2:], a.Port())
	if ip := a.Addr(); ip.IsValid() {
		b := ip.As16()
		copy(sa[8:], b[:])
		if zone, err := strconv.ParseUint(ip.Zone(), 10, 32); err == nil {
			native.PutUint32(sa[24:], uint32(zone))
		}
	}
	return sa
}

// writeSockaddr stores sa as move_addr_to_user does: what fits, then the true
// length. A null address is no error.
func writeSockaddr(c *intercept.Call, addr, lenAddr intercept.Addr, sa []byte) error {
	var l [4]byte
	if err := c.ReadMem(lenAddr, l[:]); err != nil {
		return err
	}
	room := int32(native.Uint32(l[:]))
	if room < 0 {
		return unix.EINVAL
	}
	if n := min(int(room), len(sa)); n > 0 {
		if err := c.WriteMem(addr, sa[:n]); err != nil {
			return err
		}
	}
	native.PutUint32(l[:], uint32(len(sa)))
	return c.WriteMem(lenAddr, l[:])
}

// handleBind answers bind(2).
func (m *Module) handleBind(c *intercept.Call) intercept.Action {
	return m.withUnix(c, named(m.bindTo), func(s socket, d *held) intercept.Action {
		sa, err := readSockaddr(c, intercept.Addr(c.Args[1]), int32(c.Args[2]))
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		b := s.common()
		if nl, ok := b.ep.(*netlink); ok {
			return result(nl.bind(sa, c.Task.TGID()))
		}
		if a, ok := b.ep.(*afpacket); ok {
			return result(a.bind(sa))
		}
		if b.typ == unix.SOCK_RAW {
			if err := rawName(b.family, sa); err != nil {
				return intercept.Fail(intercept.Errno(err))
			}
		}
		if sockaddrFamily(sa) == unix.AF_UNSPEC && b.family == unix.AF_INET && len(sa) >= unix.SizeofSockaddrInet4 {
			// Accepted for old programs if the address is the wildcard
			// (net/ipv4/af_inet.c:__inet_bind).
			if native.Uint32(sa[4:]) != 0 {
				return intercept.Fail(unix.EAFNOSUPPORT)
			}
			native.PutUint16(sa, unix.AF_INET)
		}
		to, err := parseSockaddr(b.family, sa)
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		if !to.IsValid() {
			return intercept.Fail(otherFamily(b.family, sa))
		}
		m.live.sweep() // a port may be held by a placeholder that is gone
		b.mu.Lock()
		defer b.mu.Unlock()
		if st, ok := s.(*stream); ok {
			st.forgetPort()
		}
		err = b.ep.Bind(to)
		if intercept.Errno(err) == unix.EADDRINUSE {
			b.mu.Unlock()
			m.live.reapClosed()
			b.mu.Lock()
			err = b.ep.Bind(to)
		}
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		b.bound = true
		if b.typ == unix.SOCK_DGRAM && b.ep != nil && to.Port() != 0 && (b.proto == 0 || b.proto == unix.IPPROTO_UDP) {
			b.announce(unix.IPPROTO_UDP)
		}
		return intercept.Return(0)
	})
}

// handleGetsockname answers getsockname(2).
func (m *Module) handleGetsockname(c *intercept.Call) intercept.Action {
	return m.withUnix(c, m.nameUnix, func(s socket, d *held) intercept.Action {
		b := s.common()
		b.mu.Lock()
		sa := localName(s)
		b.mu.Unlock()
		return result(writeSockaddr(c, intercept.Addr(c.Args[1]), intercept.Addr(c.Args[2]), sa))
	})
}

// localName encodes the local address of s, whose mutex is held.
func localName(s socket) []byte {
	b := s.common()
	if nl, ok := b.ep.(*netlink); ok {
		return nl.localName()
	}
	if a, ok := b.ep.(*afpacket); ok {
		return a.localName()
	}
	local, _ := b.ep.Names()
	if p, ok := s.(*packet); ok && p.stubPeer.IsValid() {
		local = p.stubLocal(local)
	}
	if st, ok := s.(*stream); ok && st.local.IsValid() {
		local = st.local
	}
	return encodeSockaddr(b.family, local)
}

// handleGetpeername answers getpeername(2).
func (m *Module) handleGetpeername(c *intercept.Call) intercept.Action {
	return m.withUnix(c, m.nameUnix, func(s socket, d *held) intercept.Action {
		b := s.common()
		b.mu.Lock()
		sa, err := remoteName(s)
		b.mu.Unlock()
		if err != nil {
			return intercept.Fail(intercept.Errno(err))
		}
		return result(writeSockaddr(c, intercept.Addr(c.Args[1]), intercept.Addr(c.Args[2]), sa))
	})
}

// remoteName encodes the remote address of s, whose mutex is held. ENOTCONN
// without one.
func remoteName(s socket) ([]byte, error) {
	b := s.common()
	if _, ok := b.ep.(*netlink); ok {
		return netlinkName(0, 0), nil
	}
	if b.family == unix.AF_PACKET {
		return nil, unix.EOPNOTSUPP
	}
	_, remote := b.ep.Names()
	switch s := s.(type) {
	case *packet:
		if s.stubPeer.IsValid() {
			remote = s.stubPeer
		}
		if s.isPing() && remote.Port() == 0 {
			return nil, unix.ENOTCONN // net/ipv4/af_inet.c:inet_getname looks at the port
		}
	case *stream:
		remote = s.remote
		if s.state != connected {
			remote = netip.AddrPort{}
		}
	}
	if !remote.IsValid() {
		return nil, unix.ENOTCONN
	}
	return encodeSockaddr(b.family, remote), nil
}

// result answers 0 or the errno of err.
func result(err error) intercept.Action {
	if err != nil {
		return intercept.Fail(intercept.Errno(err))
	}
	return intercept.Return(0)
}
