// SPDX-License-Identifier: Apache-2.0

// Addresses of IPv6 that say nothing without an interface.

package netstack

import (
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// needsScope tells whether an address needs an interface (net/ipv6.h:__ipv6_addr_needs_scope_id).
func needsScope(a netip.Addr) bool {
	return a.Is6() && !a.Is4In6() && (a.IsLinkLocalUnicast() || a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast())
}

// zoneOf is the interface that a names, 0 if none.
func zoneOf(a netip.Addr) tcpip.NICID {
	n, err := strconv.ParseInt(a.Zone(), 10, 32)
	if err != nil {
		return 0
	}
	return tcpip.NICID(n)
}

// withZone is a scoped address on an interface, and any other as it is.
func withZone(a netip.AddrPort, nic tcpip.NICID) netip.AddrPort {
	if nic == 0 || !needsScope(a.Addr()) {
		return a
	}
	return netip.AddrPortFrom(a.Addr().WithZone(strconv.Itoa(int(nic))), a.Port())
}

// device is what the socket is bound to by SO_BINDTODEVICE, or by bind(2) and the
// like where those do so; 0 for none.
func (s *sock) device() tcpip.NICID {
	if s.raw != nil {
		s.raw.in.mu.Lock()
		defer s.raw.in.mu.Unlock()
		return s.raw.in.dev
	}
	return tcpip.NICID(s.endpoint().SocketOptions().GetBindToDevice())
}

// connectScope gives a destination that needs one its interface, as connect(2) does
// (net/ipv6/tcp_ipv6.c:tcp_v6_connect, net/ipv6/datagram.c:__ip6_datagram_connect).
func (s *sock) connectScope(f *tcpip.FullAddress, a netip.Addr) error {
	if !needsScope(a) {
		return nil
	}
	dev := s.device()
	if f.NIC != 0 && dev != 0 && f.NIC != dev {
		return unix.EINVAL
	}
	if f.NIC == 0 {
		f.NIC = dev
	}
	if f.NIC == 0 && a.IsMulticast() {
		f.NIC = s.multicastNIC()
	}
	if f.NIC == 0 {
		return unix.EINVAL
	}
	return nil
}

// sendScope is the same for a datagram to an address. Only ping sockets insist
// (net/ipv6/ping.c:ping_v6_sendmsg); the others look for any route.
func (s *packetSocket) sendScope(f *tcpip.FullAddress, a netip.Addr) error {
	dev := s.device()
	if s.proto != unix.IPPROTO_ICMPV6 {
		if needsScope(a) && f.NIC == 0 {
			f.NIC = dev
		}
		return nil
	}
	if f.NIC != 0 && dev != 0 && f.NIC != dev {
		return unix.EINVAL
	}
	oif := f.NIC
	if oif == 0 {
		oif = dev
	}
	if oif == 0 && a.IsMulticast() {
		oif = s.multicastNIC()
	} else if oif == 0 {
		s.mu.Lock()
		oif = s.unicastIf(a)
		s.mu.Unlock()
	}
	if needsScope(a) {
		if oif == 0 {
			return unix.EINVAL
		}
		f.NIC = oif
	}
	return nil
}
