// SPDX-License-Identifier: Apache-2.0

// Binding: what bind(2) refuses before gVisor is asked, and who may listen where
// another one does.

package netstack

import (
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// Bind names the socket, bind(2).
func (s *sock) Bind(a netip.AddrPort) error {
	if err := s.down(); err != nil {
		return err
	}
	if err := s.bindable(a.Addr()); err != nil {
		return err
	}
	f, err := full(s.family, a)
	if err != nil {
		return err
	}
	if f.NIC == 0 && needsScope(a.Addr()) {
		f.NIC = s.device()
	}
	if err = bindErrno(s.endpoint().Bind(f)); err == unix.EADDRNOTAVAIL {
		return s.bindFree(a.Addr(), f)
	}
	return err
}

// bindable has what net/ipv6/af_inet6.c:__inet6_bind looks at before the address
// itself.
func (s *sock) bindable(a netip.Addr) error {
	so := s.endpoint().SocketOptions()
	switch {
	case s.family != unix.AF_INET6:
		return nil
	case s.proto == unix.IPPROTO_ICMPV6 && s.raw == nil && (a.IsMulticast() || needsScope(a) && a.Zone() == ""):
		return unix.EINVAL // net/ipv4/ping.c:ping_check_bind_addr
	case a.IsMulticast() && s.typ == unix.SOCK_STREAM:
		return unix.EINVAL
	case a.Is4In6() && so.GetV6Only():
		return unix.EINVAL
	case !needsScope(a):
		return nil
	}
	nic := zoneOf(a)
	if nic == 0 {
		nic = s.device()
	}
	switch {
	case nic == 0:
		return unix.EINVAL // it says nothing without an interface
	case !s.st.gv.HasNIC(nic):
		return unix.ENODEV
	}
	return nil
}

// listenerAt tells whether another socket listens where s would: gVisor lets two
// that have SO_REUSEADDR, Linux only those that have SO_REUSEPORT
// (net/ipv4/inet_connection_sock.c:inet_csk_bind_conflict).
func (s *stream) listenerAt() bool {
	ep := s.endpoint()
	mine, port := spanOf(ep)
	if port == 0 {
		return false
	}
	for _, te := range s.st.gv.RegisteredEndpoints() {
		other, ok := te.(tcpip.Endpoint)
		if !ok || other == ep || tcp.EndpointState(other.State()) != tcp.StateListen {
			continue
		}
		if ep.SocketOptions().GetReusePort() && other.SocketOptions().GetReusePort() {
			continue
		}
		if theirs, at := spanOf(other); at == port && mine.meets(theirs) {
			return true
		}
	}
	return false
}

// A span is what an endpoint is bound to: an address, or all of one family or of
// both.
type span struct {
	addr      netip.Addr // the zero Addr for all
	four, six bool
}

// meets tells whether a connection may be for both.
func (a span) meets(b span) bool {
	return (a.four && b.four || a.six && b.six) && (!a.addr.IsValid() || !b.addr.IsValid() || a.addr == b.addr)
}

// spanOf has the local address and port of an endpoint. A wildcard of gVisor's
// does not tell its family; the endpoint does.
func spanOf(ep tcpip.Endpoint) (span, uint16) {
	at, err := ep.GetLocalAddress()
	if err != nil {
		return span{}, 0
	}
	if a := addrOf(unix.AF_INET, at.Addr, 0).Unmap(); !a.IsUnspecified() {
		return span{a, a.Is4(), a.Is6()}, at.Port
	}
	info, ok := ep.Info().(*stack.TransportEndpointInfo)
	if ok && info.NetProto == header.IPv4ProtocolNumber {
		return span{four: true}, at.Port
	}
	return span{four: !ep.SocketOptions().GetV6Only(), six: true}, at.Port
}

// noRoute is the errno of a datagram or a connection that has no route: EINVAL if
// that is for its source, a loopback address (net/ipv4/route.c:
// ip_route_output_key_hash_rcu and fib_validate_source give it for those).
func (s *sock) noRoute(to tcpip.FullAddress) unix.Errno {
	local := s.localName().Addr().Unmap()
	if local.Is4() && local.IsLoopback() && !addrOf(unix.AF_INET, to.Addr, 0).Unmap().IsLoopback() {
		return unix.EINVAL
	}
	return unix.ENETUNREACH
}
