// SPDX-License-Identifier: Apache-2.0

// Where names are asked: sockets on the addresses that resolv.conf names.

package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// Numbers of rules and tables, out of the way of those that people choose.
const (
	namesTable    = 0x756d0000
	namesPriority = 53
)

// ownMark is the bit of SO_MARK that umrun's own sockets have, and that lets their
// packets pass by the rules: the server that the stub asks may have the very address
// that programs ask.
const ownMark = 1 << 30

// ListenNames opens a UDP and a TCP socket on an address to which programs send their
// queries. Where that is not one of the loopback's, only what is sent to this port is
// turned round, by a rule and a table of its own; everything else that goes there goes
// where it would, and so do sockets of [Stack.Socket].
func (s *Stack) ListenNames(at netip.AddrPort) (net.PacketConn, net.Listener, error) {
	if !s.private {
		return nil, nil, unix.EPERM
	}
	if !at.Addr().IsLoopback() {
		if err := s.divert(at); err != nil {
			return nil, nil, fmt.Errorf("divert %s: %w", at, err)
		}
	}
	udp, err := s.listenFile(unix.SOCK_DGRAM, at)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", at, err)
	}
	defer udp.Close() // net has duplicates
	tcp, err := s.listenFile(unix.SOCK_STREAM, at)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", at, err)
	}
	defer tcp.Close()
	pc, err := net.FilePacketConn(udp)
	if err != nil {
		return nil, nil, err
	}
	l, err := net.FileListener(tcp)
	if err != nil {
		return nil, nil, errors.Join(err, pc.Close())
	}
	return pc, l, nil
}

// divert has what is sent to a port delivered here.
func (s *Stack) divert(at netip.AddrPort) error {
	s.setMu.Lock()
	defer s.setMu.Unlock()
	a := at.Addr()
	s.tables++
	table := namesTable + s.tables
	// Answers go to the port that the query came from, which is not diverted, so that
	// its address must be one that is here anyway.
	src := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if a.Is6() {
		src = netip.IPv6Loopback()
	}
	rt := stacks.Route{Dst: netip.PrefixFrom(a, a.BitLen()), Src: src, IfIndex: loopback, Table: table, Type: unix.RTN_LOCAL}
	if err := s.nl.setRoute(unix.RTM_NEWROUTE, rt); err != nil {
		return fmt.Errorf("route: %w", err)
	}
	// IPv4 asks the rules about the way back too, when a packet of that address comes in
	// (net/ipv4/fib_frontend.c: __fib_validate_source), and drops what seems to come from
	// here. So they are for packets that have no source yet, or the one that they get.
	sources := []netip.Addr{{}}
	if a.Is4() {
		sources = []netip.Addr{netip.IPv4Unspecified(), src}
	}
	for _, from := range sources {
		for _, proto := range []int{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			// Before the table local, which cannot know the address.
			if err := s.nl.addRule(portRule{src: from, dst: a, proto: proto, port: at.Port(), table: table, priority: namesPriority}); err != nil {
				return fmt.Errorf("rule: %w", err)
			}
		}
	}
	return nil
}

// listenFile makes a bound socket; at may be an address that no interface has.
func (s *Stack) listenFile(typ int, at netip.AddrPort) (_ *os.File, err error) {
	family, level, transparent := unix.AF_INET, unix.IPPROTO_IP, unix.IP_TRANSPARENT
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(at.Port())}
	if at.Addr().Is4() {
		sa.(*unix.SockaddrInet4).Addr = at.Addr().As4()
	} else {
		family, level, transparent = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
		sa = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	}
	fd, err := s.SocketFD(family, typ, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "names")
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	// IP_FREEBIND would let it bind, but not answer.
	if err := unix.SetsockoptInt(fd, level, transparent, 1); err != nil {
		return nil, err
	}
	if typ == unix.SOCK_STREAM {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return nil, err
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return nil, err
	}
	if typ == unix.SOCK_STREAM {
		if err := unix.Listen(fd, 128); err != nil {
			return nil, err
		}
	}
	return f, nil
}
