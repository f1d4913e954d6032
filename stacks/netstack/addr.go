// SPDX-License-Identifier: Apache-2.0

// Addresses: netip on our side, tcpip on gVisor's.

package netstack

import (
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// gvAddr converts an address. IPv4-mapped IPv6 addresses stay mapped: gVisor
// takes them on IPv6 endpoints. The zero Addr gives the empty address.
func gvAddr(a netip.Addr) tcpip.Address {
	switch {
	case a.Is4():
		return tcpip.AddrFrom4(a.As4())
	case a.Is6():
		return tcpip.AddrFrom16(a.As16())
	}
	return tcpip.Address{}
}

func protoOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

// maskOf returns the mask of a prefix.
func maskOf(p netip.Prefix) []byte {
	m := make([]byte, p.Addr().BitLen()/8)
	for i := range m {
		m[i] = ^byte(0xff >> max(0, min(8, p.Bits()-8*i)))
	}
	return m
}

// full converts an address that a call was given on a socket of the family. The
// unspecified address becomes the empty one, for gVisor the wildcard of bind and
// the own address of connect. Errors: EAFNOSUPPORT for IPv6 on AF_INET, EINVAL for a link-local address
// without a zone or with one that is no interface index.
func full(family int, ap netip.AddrPort) (tcpip.FullAddress, error) {
	a := ap.Addr()
	if family == unix.AF_INET && !a.Is4() {
		if !a.Is4In6() {
			return tcpip.FullAddress{}, unix.EAFNOSUPPORT
		}
		a = a.Unmap()
	}
	if family == unix.AF_INET6 && a.Is4() {
		a = netip.AddrFrom16(a.As16())
	}
	f := tcpip.FullAddress{Port: ap.Port()}
	if z := a.Zone(); z != "" {
		id, err := strconv.Atoi(z)
		if err != nil || id <= 0 {
			return tcpip.FullAddress{}, unix.EINVAL
		}
		f.NIC = tcpip.NICID(id)
		a = a.WithZone("")
	}
	if !a.IsUnspecified() {
		f.Addr = gvAddr(a)
	}
	return f, nil
}

// addrPort converts an address of gVisor for a socket of the family: IPv4 is
// mapped on AF_INET6, the empty address is the unspecified one.
func addrPort(family int, f tcpip.FullAddress) netip.AddrPort {
	return netip.AddrPortFrom(addrOf(family, f.Addr, f.NIC), f.Port)
}

func addrOf(family int, a tcpip.Address, nic tcpip.NICID) netip.Addr {
	switch a.Len() {
	case header.IPv4AddressSize:
		v4 := netip.AddrFrom4(a.As4())
		if family == unix.AF_INET6 {
			return netip.AddrFrom16(v4.As16())
		}
		return v4
	case header.IPv6AddressSize:
		v6 := netip.AddrFrom16(a.As16())
		if v6.IsLinkLocalUnicast() && nic != 0 {
			v6 = v6.WithZone(strconv.Itoa(int(nic)))
		}
		return v6
	}
	if family == unix.AF_INET6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
