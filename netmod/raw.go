// SPDX-License-Identifier: Apache-2.0

// What is peculiar to raw sockets, raw(7): how they judge addresses.

package netmod

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"umrun/intercept"
)

// rawDestination decodes the address that a raw socket sends to. AF_UNSPEC is taken
// for the socket's family (net/ipv4/raw.c:raw_sendmsg, net/ipv6/raw.c:rawv6_sendmsg),
// and the lengths are judged before the family.
func rawDestination(family int, sa []byte) (netip.AddrPort, error) {
	least := unix.SizeofSockaddrInet4
	if family == unix.AF_INET6 {
		least = sin6LenRFC2133
	}
	if len(sa) < least {
		return netip.AddrPort{}, unix.EINVAL
	}
	switch sockaddrFamily(sa) {
	case unix.AF_UNSPEC:
		native.PutUint16(sa, uint16(family))
	case family:
	default:
		return netip.AddrPort{}, unix.EAFNOSUPPORT
	}
	return parseSockaddr(family, sa)
}

// rawPeer decodes the address of a connect. One of another family is told as that
// before its length is judged (net/ipv6/datagram.c:ip6_datagram_connect_v6_only).
func rawPeer(family int, sa []byte) (netip.AddrPort, error) {
	if f := sockaddrFamily(sa); family == unix.AF_INET6 && len(sa) >= 2 && f != family && f != unix.AF_UNSPEC {
		return netip.AddrPort{}, unix.EAFNOSUPPORT
	}
	return parseSockaddr(family, sa)
}

// rawName judges the address of a bind: IPv4 does not look at the family
// (net/ipv4/raw.c:raw_bind), IPv6 has an errno of its own (net/ipv6/raw.c:rawv6_bind).
func rawName(family int, sa []byte) error {
	switch {
	case family == unix.AF_INET && len(sa) >= unix.SizeofSockaddrInet4:
		native.PutUint16(sa, unix.AF_INET)
	case family == unix.AF_INET6 && sockaddrFamily(sa) != unix.AF_INET6:
		return unix.EINVAL
	}
	return nil
}

// shutRaw answers shutdown(2) of a connected raw socket: it goes on sending, so that
// the placeholder is shut for reading only.
func shutRaw(d intercept.FD, how int) intercept.Action {
	if how == unix.SHUT_WR {
		return intercept.Return(0)
	}
	return result(unix.Shutdown(d.N, unix.SHUT_RD))
}
