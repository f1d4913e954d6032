// SPDX-License-Identifier: Apache-2.0

// Connections for our own use, as package net makes them.

package netstack

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// DialContext connects to an address over the stack; network is "tcp" or "udp",
// or one of them with a 4 or 6. It is for the DNS stub and the like: programs
// come by Socket. Errors of TCP are those of package gonet.
func (s *Stack) DialContext(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
	if s.closed.Load() {
		return nil, &net.OpError{Op: "dial", Net: network, Err: unix.ENETDOWN}
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	f, err := full(family, addr)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: net.UDPAddrFromAddrPort(addr), Err: err}
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
		return gonet.DialContextTCP(ctx, s.gv, f, protoOf(addr.Addr()))
	case "udp", "udp4", "udp6":
		return gonet.DialUDP(s.gv, nil, &f, protoOf(addr.Addr()))
	}
	return nil, fmt.Errorf("dial %s: unknown network", network)
}
