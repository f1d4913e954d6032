// SPDX-License-Identifier: Apache-2.0

// The options of levels IPPROTO_IP and IPPROTO_IPV6, ip(7) and ipv6(7).

package netstack

import (
	"encoding/binary"
	"math"
	"net/netip"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	ip4 = unix.IPPROTO_IP
	ip6 = unix.IPPROTO_IPV6

	ipIPsecPolicy = 16 // IP_IPSEC_POLICY of linux/in.h
)

var solIP = map[optKey]option{
	{ip4, unix.IP_UNICAST_IF}: optUnicastIf(ip4, unix.IP_UNICAST_IF, "IP_UNICAST_IF"),

	{ip4, unix.IP_TOS}: {name: "IP_TOS", set: func(s *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := ipIntOrNone(v)
		if err != nil {
			return err
		}
		if s.typ == unix.SOCK_STREAM {
			n &^= 3 // ECN belongs to TCP (net/ipv4/ip_sockglue.c:__ip_sock_set_tos)
		}
		return optErrno(ep.SetSockOptInt(tcpip.IPv4TOSOption, n&0xff))
	}, get: getIPInt(tcpip.IPv4TOSOption)},
	{ip4, unix.IP_TTL}: {name: "IP_TTL", set: func(_ *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := ipInt(v)
		switch {
		case err != nil:
			return err
		case n == -1:
			n = tcpip.UseDefaultIPv4TTL
		case n < 1 || n > 255:
			return unix.EINVAL
		}
		return optErrno(ep.SetSockOptInt(tcpip.IPv4TTLOption, n))
	}, get: func(_ *sock, ep tcpip.Endpoint) ([]byte, error) {
		n, err := ep.GetSockOptInt(tcpip.IPv4TTLOption)
		if n == tcpip.UseDefaultIPv4TTL {
			n = 64 // net.ipv4.ip_default_ttl
		}
		return bytesOf(n), optErrno(err)
	}},
	{ip4, unix.IP_MTU_DISCOVER}: mtuDiscover("IP_MTU_DISCOVER", ipIntOrNone),
	{ip4, unix.IP_MTU}:          {name: "IP_MTU", get: getMTU4},

	// netmod turns these into control messages; every datagram carries the
	// values (stacks.Message).
	{ip4, unix.IP_RECVTOS}:  keptBool(ip4, unix.IP_RECVTOS, "IP_RECVTOS", 0, ""),
	{ip4, unix.IP_RECVTTL}:  keptBool(ip4, unix.IP_RECVTTL, "IP_RECVTTL", 0, ""),
	{ip4, unix.IP_PKTINFO}:  keptBool(ip4, unix.IP_PKTINFO, "IP_PKTINFO", 0, ""),
	{ip4, unix.IP_RECVOPTS}: keptBool(ip4, unix.IP_RECVOPTS, "IP_RECVOPTS", 0, "IP options are not shown"),
	// ping sets it always; what it shows is there only if the peer sent options.
	{ip4, unix.IP_RETOPTS}:         keptBool(ip4, unix.IP_RETOPTS, "IP_RETOPTS", 0, ""),
	{ip4, unix.IP_RECVERR}:         recvErr(ip4, unix.IP_RECVERR, "IP_RECVERR"),
	{ip4, unix.IP_RECVORIGDSTADDR}: keptBool(ip4, unix.IP_RECVORIGDSTADDR, "IP_RECVORIGDSTADDR", 0, ""),

	{ip4, unix.IP_BIND_ADDRESS_NO_PORT}: keptBool(ip4, unix.IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT", 0, ""),
	{ip4, unix.IP_MINTTL}:               kept(ip4, unix.IP_MINTTL, "IP_MINTTL", 0, 0, 255, ipInt, "packets with a lower TTL are taken"),
	{ip4, unix.IP_OPTIONS}: {name: "IP_OPTIONS", set: func(_ *sock, _ tcpip.Endpoint, v []byte) error {
		if len(v) == 0 {
			return nil
		}
		return unix.ENOPROTOOPT
	}, get: func(*sock, tcpip.Endpoint) ([]byte, error) { return nil, nil }},
	{ip4, unix.IP_TRANSPARENT}: {name: "IP_TRANSPARENT", set: func(_ *sock, _ tcpip.Endpoint, v []byte) error {
		if n, err := ipInt(v); err != nil || n == 0 {
			return err
		}
		return unix.EPERM
	}, get: func(*sock, tcpip.Endpoint) ([]byte, error) { return bytesOf(0), nil }},
	{ip4, unix.IP_FREEBIND}: kept(ip4, unix.IP_FREEBIND, "IP_FREEBIND", 0, 0, 1, truth(ipInt), ""),
	{ip4, unix.IP_PASSSEC}:  keptBool(ip4, unix.IP_PASSSEC, "IP_PASSSEC", 0, ""),
	{ip4, unix.IP_PROTOCOL}: constant("IP_PROTOCOL", func(s *sock) int {
		if s.typ == unix.SOCK_RAW {
			return s.proto
		}
		return int(s.localName().Port()) // the same field, in Linux
	}),
	{ip4, unix.IP_XFRM_POLICY}: {name: "IP_XFRM_POLICY", set: func(*sock, tcpip.Endpoint, []byte) error { return unix.EPERM }},
	{ip4, ipIPsecPolicy}:       {name: "IP_IPSEC_POLICY", set: func(*sock, tcpip.Endpoint, []byte) error { return unix.EPERM }},

	{ip4, unix.IP_MULTICAST_TTL}: {name: "IP_MULTICAST_TTL", set: func(_ *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := ipInt(v)
		switch {
		case err != nil:
			return err
		case n == -1:
			n = 1
		case n < 0 || n > 255:
			return unix.EINVAL
		}
		return optErrno(ep.SetSockOptInt(tcpip.MulticastTTLOption, n))
	}, get: getIPInt(tcpip.MulticastTTLOption)},
	{ip4, unix.IP_MULTICAST_LOOP}: multicastLoop("IP_MULTICAST_LOOP", ipInt),
	{ip4, unix.IP_MULTICAST_ALL}:  multicastAll4,
	{ip4, unix.IP_MULTICAST_IF}: {name: "IP_MULTICAST_IF", set: setMulticastIf, bytes: true, get: func(s *sock, ep tcpip.Endpoint) ([]byte, error) {
		var o tcpip.MulticastInterfaceOption
		if s.typ == unix.SOCK_STREAM { // gVisor's streams have none
			return make([]byte, 4), nil
		}
		if err := ep.GetSockOpt(&o); err != nil {
			return nil, errno(err)
		}
		if o.InterfaceAddr.Len() == header.IPv4AddressSize {
			return o.InterfaceAddr.AsSlice(), nil
		}
		return make([]byte, 4), nil
	}},
}

// multicastAll4 is on from the start, but in IPv6 sockets (inet_create, inet6_create).
var multicastAll4 = func() option {
	o := kept(ip4, unix.IP_MULTICAST_ALL, "IP_MULTICAST_ALL", 1, 0, 1, ipInt, "")
	o.get = func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
		initial := 1
		if s.family == unix.AF_INET6 {
			initial = 0
		}
		return bytesOf(s.val(optKey{ip4, unix.IP_MULTICAST_ALL}, initial)), nil
	}
	return o
}()

var solIPv6 = map[optKey]option{
	{ip6, unix.IPV6_UNICAST_IF}: optUnicastIf(ip6, unix.IPV6_UNICAST_IF, "IPV6_UNICAST_IF"),
	{ip6, unix.IPV6_PKTINFO}:    stickyInfo,

	{ip6, unix.IPV6_V6ONLY}: {name: "IPV6_V6ONLY", set: func(s *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		if err != nil {
			return err
		}
		if local := s.localName(); local.Port() != 0 {
			return unix.EINVAL // ipv6(7): before bind(2) only
		}
		ep.SocketOptions().SetV6Only(n != 0)
		return nil
	}, get: func(_ *sock, ep tcpip.Endpoint) ([]byte, error) {
		return boolBytes(ep.SocketOptions().GetV6Only()), nil
	}},
	{ip6, unix.IPV6_TCLASS}: {name: "IPV6_TCLASS", set: func(s *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		switch {
		case err != nil:
			return err
		case n == -1:
			n = 0
		case n < -1 || n > 255:
			return unix.EINVAL
		}
		if s.typ == unix.SOCK_STREAM {
			n &^= 3
		}
		return optErrno(ep.SetSockOptInt(tcpip.IPv6TrafficClassOption, n))
	}, get: getIPInt(tcpip.IPv6TrafficClassOption)},
	{ip6, unix.IPV6_UNICAST_HOPS}: {name: "IPV6_UNICAST_HOPS", set: func(_ *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		if err != nil {
			return err
		}
		if n < -1 || n > 255 {
			return unix.EINVAL
		}
		return optErrno(ep.SetSockOptInt(tcpip.IPv6HopLimitOption, n))
	}, get: func(_ *sock, ep tcpip.Endpoint) ([]byte, error) {
		n, err := ep.GetSockOptInt(tcpip.IPv6HopLimitOption)
		if n == tcpip.UseDefaultIPv6HopLimit {
			n = 64 // net.ipv6.conf.default.hop_limit
		}
		return bytesOf(n), optErrno(err)
	}},
	{ip6, unix.IPV6_MTU_DISCOVER}: mtuDiscover("IPV6_MTU_DISCOVER", intOf),
	{ip6, unix.IPV6_MTU}: {name: "IPV6_MTU", get: getMTU, set: func(_ *sock, _ tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		if err == nil && n != 0 && n < header.IPv6MinimumMTU {
			err = unix.EINVAL
		}
		return err
	}, gap: "datagrams are fragmented by the interface's MTU"},

	{ip6, unix.IPV6_RECVPKTINFO}:     keptBool(ip6, unix.IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO", 0, ""),
	{ip6, unix.IPV6_RECVTCLASS}:      keptBool(ip6, unix.IPV6_RECVTCLASS, "IPV6_RECVTCLASS", 0, ""),
	{ip6, unix.IPV6_RECVHOPLIMIT}:    keptBool(ip6, unix.IPV6_RECVHOPLIMIT, "IPV6_RECVHOPLIMIT", 0, ""),
	{ip6, unix.IPV6_2292PKTINFO}:     keptBool(ip6, unix.IPV6_2292PKTINFO, "IPV6_2292PKTINFO", 0, ""),
	{ip6, unix.IPV6_2292HOPLIMIT}:    keptBool(ip6, unix.IPV6_2292HOPLIMIT, "IPV6_2292HOPLIMIT", 0, ""),
	{ip6, unix.IPV6_PATHMTU}:         {name: "IPV6_PATHMTU", bytes: true, ask: getMTUInfo},
	{ip6, unix.IPV6_RECVHOPOPTS}:     keptBool(ip6, unix.IPV6_RECVHOPOPTS, "IPV6_RECVHOPOPTS", 0, "extension headers are not shown"),
	{ip6, unix.IPV6_RECVRTHDR}:       keptBool(ip6, unix.IPV6_RECVRTHDR, "IPV6_RECVRTHDR", 0, "extension headers are not shown"),
	{ip6, unix.IPV6_RECVDSTOPTS}:     keptBool(ip6, unix.IPV6_RECVDSTOPTS, "IPV6_RECVDSTOPTS", 0, "extension headers are not shown"),
	{ip6, unix.IPV6_RECVPATHMTU}:     keptBool(ip6, unix.IPV6_RECVPATHMTU, "IPV6_RECVPATHMTU", 0, "path MTU is not shown"),
	{ip6, unix.IPV6_RECVERR}:         recvErr(ip6, unix.IPV6_RECVERR, "IPV6_RECVERR"),
	{ip6, unix.IPV6_RECVORIGDSTADDR}: keptBool(ip6, unix.IPV6_RECVORIGDSTADDR, "IPV6_RECVORIGDSTADDR", 0, ""),

	{ip6, unix.IPV6_DONTFRAG}:         kept(ip6, unix.IPV6_DONTFRAG, "IPV6_DONTFRAG", 0, 0, 1, truth(intOrNone), ""),
	{ip6, unix.IPV6_AUTOFLOWLABEL}:    kept(ip6, unix.IPV6_AUTOFLOWLABEL, "IPV6_AUTOFLOWLABEL", 1, 0, 1, truth(intOrNone), ""),
	{ip6, unix.IPV6_ADDR_PREFERENCES}: kept(ip6, unix.IPV6_ADDR_PREFERENCES, "IPV6_ADDR_PREFERENCES", preferPublicOrTemporary|preferHome, 0, math.MaxInt32, preferences, "source addresses are chosen by the route"),
	{ip6, unix.IPV6_MINHOPCOUNT}:      kept(ip6, unix.IPV6_MINHOPCOUNT, "IPV6_MINHOPCOUNT", 0, 0, 255, intOf, "packets with a lower hop limit are taken"),
	{ip6, unix.IPV6_FREEBIND}:         freeBindOption(),
	{ip6, unix.IPV6_TRANSPARENT}:      zeroOnly("IPV6_TRANSPARENT", unix.EPERM, true),

	{ip6, unix.IPV6_MULTICAST_HOPS}: {name: "IPV6_MULTICAST_HOPS", set: func(_ *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := intOf(v)
		switch {
		case err != nil:
			return err
		case n == -1:
			n = 1
		case n < -1 || n > 255:
			return unix.EINVAL
		}
		return optErrno(ep.SetSockOptInt(tcpip.MulticastTTLOption, n))
	}, get: getIPInt(tcpip.MulticastTTLOption)},
	{ip6, unix.IPV6_MULTICAST_LOOP}: multicastLoop("IPV6_MULTICAST_LOOP", zeroOrOne),
	{ip6, unix.IPV6_MULTICAST_ALL}:  keptBool(ip6, unix.IPV6_MULTICAST_ALL, "IPV6_MULTICAST_ALL", 1, ""),
	{ip6, unix.IPV6_MULTICAST_IF}:   multicastIf6,
}

// multicastIf6 reads as 0 of streams, of which gVisor's have none.
var multicastIf6 = func() option {
	o := option{name: "IPV6_MULTICAST_IF", set: setMulticastIf6, get: getIPInt(tcpip.IPv6MulticastInterfaceOption)}
	get := o.get
	o.get = func(s *sock, ep tcpip.Endpoint) ([]byte, error) {
		if s.typ == unix.SOCK_STREAM {
			return bytesOf(0), nil
		}
		return get(s, ep)
	}
	return o
}()

// getIPInt reads an int that gVisor has.
func getIPInt(o tcpip.SockOptInt) func(*sock, tcpip.Endpoint) ([]byte, error) {
	return func(_ *sock, ep tcpip.Endpoint) ([]byte, error) {
		n, err := ep.GetSockOptInt(o)
		return bytesOf(n), optErrno(err)
	}
}

// recvErr turns the error queue on and off; off empties it
// (net/ipv4/ip_sockglue.c:do_ip_setsockopt).
func recvErr(level, nr int, name string) option {
	o := keptBool(level, nr, name, 0, "")
	set := o.set
	o.set = func(s *sock, ep tcpip.Endpoint, v []byte) error {
		if err := set(s, ep, v); err != nil {
			return err
		}
		on := s.val(optKey{level, nr}, 0) != 0
		if level == ip4 {
			s.reports.recv4.Store(on)
		} else {
			s.reports.recv6.Store(on)
		}
		if !on {
			s.reports.mu.Lock()
			s.reports.queue, s.reports.size = nil, 0
			s.reports.mu.Unlock()
		}
		return nil
	}
	return o
}

// mtuDiscover is the path MTU strategy. gVisor has the values 0 to 3 of Linux;
// INTERFACE and OMIT (4 and 5) are PROBE and DONT to it.
func mtuDiscover(name string, decode func([]byte) (int, error)) option {
	const iface, omit = unix.IP_PMTUDISC_INTERFACE, unix.IP_PMTUDISC_OMIT
	k := optKey{ip4, unix.IP_MTU_DISCOVER} // both levels share it
	return option{
		name: name,
		set: func(s *sock, ep tcpip.Endpoint, v []byte) error {
			n, err := decode(v)
			if err != nil {
				return err
			}
			if n < unix.IP_PMTUDISC_DONT || n > omit {
				return unix.EINVAL
			}
			pmtud := [...]tcpip.PMTUDStrategy{
				unix.IP_PMTUDISC_DONT:  tcpip.PMTUDiscoveryDont,
				unix.IP_PMTUDISC_WANT:  tcpip.PMTUDiscoveryWant,
				unix.IP_PMTUDISC_DO:    tcpip.PMTUDiscoveryDo,
				unix.IP_PMTUDISC_PROBE: tcpip.PMTUDiscoveryProbe,
				iface:                  tcpip.PMTUDiscoveryProbe,
				omit:                   tcpip.PMTUDiscoveryDont,
			}[n]
			if err := ep.SetSockOptInt(tcpip.MTUDiscoverOption, int(pmtud)); err != nil {
				return errno(err)
			}
			s.setVal(k, n)
			s.reports.strategy.Store(int32(n))
			return nil
		},
		get: func(s *sock, _ tcpip.Endpoint) ([]byte, error) {
			return bytesOf(s.val(k, unix.IP_PMTUDISC_WANT)), nil
		},
	}
}

// pathMTU returns an address, the peer's if to is nil, and the MTU of the
// interface towards it in bytes.
func (s *sock) pathMTU(to *tcpip.FullAddress) (netip.AddrPort, int, bool) {
	dst := tcpip.FullAddress{}
	if to != nil {
		dst = *to
	} else if f, err := s.endpoint().GetRemoteAddress(); err == nil {
		dst = f
	} else {
		return netip.AddrPort{}, 0, false
	}
	a := addrOf(unix.AF_INET, dst.Addr, 0).Unmap()
	r, err := s.st.gv.FindRoute(dst.NIC, tcpip.Address{}, gvAddr(a), protoOf(a), false)
	if err != nil {
		return netip.AddrPort{}, 0, false
	}
	defer r.Release()
	// gVisor's MTU of a route is that of its interface less the IP header.
	for _, i := range s.st.State().Interfaces {
		if i.Index == int(r.OutgoingNIC()) {
			hdr := header.IPv4MinimumSize
			if a.Is6() {
				hdr = header.IPv6MinimumSize
			}
			if n := int(r.MTU()) + hdr; !i.Loop && n < i.MTU {
				return addrPort(s.family, dst), n, true // the route has one of its own
			}
			return addrPort(s.family, dst), i.MTU, true
		}
	}
	return netip.AddrPort{}, 0, false
}

// getMTU4 is getMTU for IP_MTU, which is no more than a packet of IPv4 can have
// (net/ip.h:IP_MAX_MTU).
func getMTU4(s *sock, ep tcpip.Endpoint) ([]byte, error) {
	v, err := getMTU(s, ep)
	if to, e := ep.GetRemoteAddress(); e != nil || to.Addr.Len() != header.IPv4AddressSize {
		return v, err
	}
	if err == nil && binary.NativeEndian.Uint32(v) > math.MaxUint16 {
		v = bytesOf(math.MaxUint16)
	}
	return v, err
}

func getMTU(s *sock, _ tcpip.Endpoint) ([]byte, error) {
	dst, mtu, ok := s.pathMTU(nil)
	if !ok {
		return nil, unix.ENOTCONN // ip(7), IP_MTU
	}
	return bytesOf(s.st.paths.of(dst.Addr().Unmap().WithZone(""), mtu)), nil
}

// getMTUInfo fills struct ip6_mtuinfo: a sockaddr_in6, which stays empty, and the MTU.
func getMTUInfo(s *sock, v []byte) ([]byte, error) {
	info := make([]byte, unix.SizeofSockaddrInet6+4)
	if len(v) < len(info) {
		return nil, unix.EINVAL
	}
	dst, mtu, ok := s.pathMTU(nil)
	if !ok {
		return nil, unix.ENOTCONN
	}
	binary.NativeEndian.PutUint32(info[unix.SizeofSockaddrInet6:], uint32(s.st.paths.of(dst.Addr().Unmap().WithZone(""), mtu)))
	return info, nil
}

func multicastLoop(name string, decode func([]byte) (int, error)) option {
	o := flag(name, (*tcpip.SocketOptions).GetMulticastLoop, (*tcpip.SocketOptions).SetMulticastLoop)
	o.set = func(_ *sock, ep tcpip.Endpoint, v []byte) error {
		n, err := decode(v)
		if err == nil {
			ep.SocketOptions().SetMulticastLoop(n != 0)
		}
		return err
	}
	return o
}

// zeroOrOne decodes an int that may be nothing else.
func zeroOrOne(v []byte) (int, error) {
	n, err := intOf(v)
	if err == nil && n != 0 && n != 1 {
		err = unix.EINVAL
	}
	return n, err
}

// setMulticastIf takes an address, struct ip_mreq or struct ip_mreqn.
func setMulticastIf(s *sock, ep tcpip.Endpoint, v []byte) error {
	o := tcpip.MulticastInterfaceOption{}
	switch {
	case len(v) >= 12:
		o.NIC = tcpip.NICID(binary.NativeEndian.Uint32(v[8:]))
		o.InterfaceAddr = inAddr(v[4:])
	case len(v) >= 8:
		o.InterfaceAddr = inAddr(v[4:])
	case len(v) >= 4:
		o.InterfaceAddr = inAddr(v)
	default:
		return unix.EINVAL
	}
	switch nic := o.NIC; {
	case nic != 0 && !s.st.gv.HasNIC(nic):
		return unix.EADDRNOTAVAIL
	case nic == 0 && o.InterfaceAddr.Len() > 0:
		if o.NIC = s.st.gv.CheckLocalAddress(0, header.IPv4ProtocolNumber, o.InterfaceAddr); o.NIC == 0 {
			return unix.EADDRNOTAVAIL
		}
	}
	if dev := ep.SocketOptions().GetBindToDevice(); o.NIC != 0 && dev != 0 && int32(o.NIC) != dev {
		return unix.EINVAL
	}
	return multicastErrno(ep.SetSockOpt(&o))
}

// setMulticastIf6 takes the index of an interface.
func setMulticastIf6(s *sock, ep tcpip.Endpoint, v []byte) error {
	n, err := intOf(v)
	if err != nil {
		return err
	}
	if n != 0 && !s.st.gv.HasNIC(tcpip.NICID(n)) {
		return unix.ENODEV
	}
	if dev := ep.SocketOptions().GetBindToDevice(); n != 0 && dev != 0 && int32(n) != dev {
		return unix.EINVAL
	}
	return optErrno(ep.SetSockOptInt(tcpip.IPv6MulticastInterfaceOption, n))
}

// inAddr decodes a struct in_addr; the unspecified address gives none.
func inAddr(v []byte) tcpip.Address {
	a := netip.AddrFrom4([4]byte(v[:4]))
	if a.IsUnspecified() {
		return tcpip.Address{}
	}
	return gvAddr(a)
}

// multicastErrno maps errors of group membership, ip(7).
func multicastErrno(err tcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *tcpip.ErrPortInUse:
		return unix.EADDRINUSE // a member already
	case *tcpip.ErrBadLocalAddress:
		return unix.EADDRNOTAVAIL // not a member
	case *tcpip.ErrUnknownDevice:
		return unix.ENODEV
	}
	return errno(err)
}
