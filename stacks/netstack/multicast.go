// SPDX-License-Identifier: Apache-2.0

// Multicast groups of a socket: which it has joined, from which sources, and so
// what it hears. gVisor joins groups on interfaces; that a socket hears only some
// of what its interface receives is done here, when a datagram is taken.

package netstack

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"

	"umrun/stacks"
)

// A membership is a group that a socket has joined on an interface
// (net/ipv4/igmp.c: struct ip_mc_socklist).
type membership struct {
	group    netip.Addr
	nic      tcpip.NICID
	include  bool // sources are the only ones that are heard, not those that are not
	filtered bool // there was a source once, and the mode cannot change any more
	sources  []netip.Addr
}

// Limits of Linux: net.ipv4.igmp_max_memberships, igmp_max_msf and
// net.ipv6.mld_max_msf.
const (
	maxGroups   = 20
	maxSources4 = 10
	maxSources6 = 64
)

func maxSources(group netip.Addr) int {
	if group.Is4() {
		return maxSources4
	}
	return maxSources6
}

// groupOptions are the options that this file has; they do not go into a socket's
// optionLog, since one of them does not replace another.
var groupOptions = makeGroupOptions()

func makeGroupOptions() map[optKey]option {
	all := map[optKey]option{
		{ip4, unix.IP_ADD_MEMBERSHIP}:         membershipOption("IP_ADD_MEMBERSHIP", mreq, (*sock).joinGroup),
		{ip4, unix.IP_DROP_MEMBERSHIP}:        membershipOption("IP_DROP_MEMBERSHIP", mreq, (*sock).leaveGroup),
		{ip4, unix.IP_ADD_SOURCE_MEMBERSHIP}:  sourceOption("IP_ADD_SOURCE_MEMBERSHIP", mreqSource, true, true),
		{ip4, unix.IP_DROP_SOURCE_MEMBERSHIP}: sourceOption("IP_DROP_SOURCE_MEMBERSHIP", mreqSource, true, false),
		{ip4, unix.IP_BLOCK_SOURCE}:           sourceOption("IP_BLOCK_SOURCE", mreqSource, false, true),
		{ip4, unix.IP_UNBLOCK_SOURCE}:         sourceOption("IP_UNBLOCK_SOURCE", mreqSource, false, false),
		{ip4, unix.IP_MSFILTER}:               filterOption("IP_MSFILTER", ipMsfilter),
		{ip6, unix.IPV6_JOIN_GROUP}:           membershipOption("IPV6_JOIN_GROUP", mreq6, (*sock).joinGroup6),
		{ip6, unix.IPV6_LEAVE_GROUP}:          membershipOption("IPV6_LEAVE_GROUP", mreq6, (*sock).leaveGroup6),
	}
	for _, level := range []int{ip4, ip6} {
		decode := func(v []byte) (groupReq, error) { return decodeGroupReq(level, v) }
		decodeSource := func(v []byte) (groupReq, error) { return decodeGroupSource(level, v) }
		decodeFilter := func(v []byte, set bool) (groupFilter, error) { return decodeGroupFilter(level, v, set) }
		for nr, o := range map[int]option{
			unix.MCAST_JOIN_GROUP:         membershipOption("MCAST_JOIN_GROUP", decode, (*sock).joinGroup),
			unix.MCAST_LEAVE_GROUP:        membershipOption("MCAST_LEAVE_GROUP", decode, (*sock).leaveGroup),
			unix.MCAST_JOIN_SOURCE_GROUP:  sourceOption("MCAST_JOIN_SOURCE_GROUP", decodeSource, true, true),
			unix.MCAST_LEAVE_SOURCE_GROUP: sourceOption("MCAST_LEAVE_SOURCE_GROUP", decodeSource, true, false),
			unix.MCAST_BLOCK_SOURCE:       sourceOption("MCAST_BLOCK_SOURCE", decodeSource, false, true),
			unix.MCAST_UNBLOCK_SOURCE:     sourceOption("MCAST_UNBLOCK_SOURCE", decodeSource, false, false),
			unix.MCAST_MSFILTER:           filterOption("MCAST_MSFILTER", decodeFilter),
		} {
			all[optKey{level, nr}] = o
		}
	}
	return all
}

// A groupReq is what the options about a group say, whatever their struct.
type groupReq struct {
	group  netip.Addr
	nic    tcpip.NICID // 0: the one that has local, or the one that the route to the group takes
	local  netip.Addr
	source netip.Addr
}

func membershipOption(name string, decode func([]byte) (groupReq, error), act func(*sock, groupReq) error) option {
	return option{name: name, set: func(s *sock, _ tcpip.Endpoint, v []byte) error {
		r, err := decode(v)
		if err != nil {
			return err
		}
		return act(s, r)
	}}
}

func sourceOption(name string, decode func([]byte) (groupReq, error), include, add bool) option {
	return option{name: name, set: func(s *sock, _ tcpip.Endpoint, v []byte) error {
		r, err := decode(v)
		if err != nil {
			return err
		}
		return s.changeSource(r, include, add)
	}}
}

// interfaceOf finds the interface of a request (ip_mc_find_dev); 0 is none.
func (s *sock) interfaceOf(r groupReq) tcpip.NICID {
	switch {
	case r.nic != 0:
		if !s.st.gv.HasNIC(r.nic) {
			return 0
		}
		return r.nic
	case r.local.IsValid() && !r.local.IsUnspecified():
		return s.st.gv.CheckLocalAddress(0, protoOf(r.local), gvAddr(r.local))
	}
	if p := s.st.policy.Load(); !p.plain {
		v, e := p.judge(s.flow(r.group, netip.Addr{}, 0, 0), 0)
		if e != 0 {
			return 0
		}
		return tcpip.NICID(v.nic)
	}
	rt, err := s.st.gv.FindRoute(0, tcpip.Address{}, gvAddr(r.group), protoOf(r.group), false)
	if err != nil {
		return 0
	}
	defer rt.Release()
	return rt.NICID()
}

// memberAt returns the index of a membership, -1 for none.
func (s *sock) memberAt(group netip.Addr, nic tcpip.NICID) int {
	return slices.IndexFunc(s.groups, func(m membership) bool { return m.group == group && m.nic == nic })
}

// joinGroup is IP_ADD_MEMBERSHIP and its kin. EADDRINUSE for a member.
func (s *sock) joinGroup(r groupReq) error { return s.join(r, false) }

func (s *sock) join(r groupReq, include bool) error {
	if !r.group.IsMulticast() {
		return unix.EINVAL
	}
	nic := s.interfaceOf(r)
	if nic == 0 {
		return unix.ENODEV
	}
	if s.memberAt(r.group, nic) >= 0 {
		return unix.EADDRINUSE
	}
	n := 0
	for _, m := range s.groups {
		if m.group.Is4() {
			n++
		}
	}
	if r.group.Is4() && n >= maxGroups {
		return unix.ENOBUFS
	}
	o := tcpip.AddMembershipOption{NIC: nic, MulticastAddr: gvAddr(r.group)}
	if err := s.endpoint().SetSockOpt(&o); err != nil {
		return errno(err)
	}
	s.groups = append(s.groups, membership{group: r.group, nic: nic, include: include})
	return nil
}

// leaveGroup is IP_DROP_MEMBERSHIP and its kin. EADDRNOTAVAIL for what is no
// member.
func (s *sock) leaveGroup(r groupReq) error {
	if r.group.Is6() && !r.group.IsMulticast() {
		return unix.EINVAL // net/ipv6/mcast.c:ipv6_sock_mc_drop
	}
	nic := s.interfaceOf(r)
	if nic == 0 && r.group.Is4() && r.nic == 0 && !r.local.IsValid() {
		return unix.ENODEV
	}
	i := s.memberAt(r.group, nic)
	if i < 0 {
		return unix.EADDRNOTAVAIL
	}
	o := tcpip.RemoveMembershipOption{NIC: nic, MulticastAddr: gvAddr(r.group)}
	if err := s.endpoint().SetSockOpt(&o); err != nil {
		return errno(err)
	}
	s.groups = slices.Delete(slices.Clone(s.groups), i, i+1)
	return nil
}

// joinGroup6 is IPV6_JOIN_GROUP, which streams do not have.
func (s *sock) joinGroup6(r groupReq) error {
	if s.typ == unix.SOCK_STREAM {
		return unix.EPROTO
	}
	return s.joinGroup(r)
}

// leaveGroup6 is IPV6_LEAVE_GROUP, likewise.
func (s *sock) leaveGroup6(r groupReq) error {
	if s.typ == unix.SOCK_STREAM {
		return unix.EPROTO
	}
	return s.leaveGroup(r)
}

// rejoin makes a new endpoint a member of the socket's groups.
func (s *sock) rejoin(ep tcpip.Endpoint) {
	for _, m := range s.groups {
		o := tcpip.AddMembershipOption{NIC: m.nic, MulticastAddr: gvAddr(m.group)}
		ep.SetSockOpt(&o)
	}
}

// changeSource adds a source to a membership's list or removes it
// (net/ipv4/igmp.c:ip_mc_source). include says whether the list is of those that
// are heard, and then the group is joined by its first source and left by its last.
func (s *sock) changeSource(r groupReq, include, add bool) error {
	if include && add {
		if err := s.join(r, true); err != nil && err != unix.EADDRINUSE {
			return err
		}
	}
	if !r.group.IsMulticast() {
		return unix.EINVAL
	}
	nic := s.interfaceOf(r)
	if nic == 0 {
		return unix.ENODEV
	}
	i := s.memberAt(r.group, nic)
	if i < 0 {
		return unix.EINVAL
	}
	m := s.groups[i]
	if m.include != include {
		if m.filtered {
			return unix.EINVAL
		}
		m.include = include
	}
	at := slices.Index(m.sources, r.source)
	switch {
	case add == (at >= 0):
		return unix.EADDRNOTAVAIL
	case add && len(m.sources) >= maxSources(r.group):
		return unix.ENOBUFS
	case add:
		m.sources, m.filtered = append(slices.Clone(m.sources), r.source), true
	case include && len(m.sources) == 1:
		return s.leaveGroup(r)
	default:
		m.sources = slices.Delete(slices.Clone(m.sources), at, at+1)
	}
	s.groups = slices.Clone(s.groups)
	s.groups[i] = m
	return nil
}

// A groupFilter is what IP_MSFILTER and MCAST_MSFILTER say.
type groupFilter struct {
	groupReq
	include bool
	sources []netip.Addr

	room   int                      // how many sources a reader has room for
	encode func(groupFilter) []byte // for a reader
}

func filterOption(name string, decode func(v []byte, set bool) (groupFilter, error)) option {
	return option{name: name, set: func(s *sock, _ tcpip.Endpoint, v []byte) error {
		f, err := decode(v, true)
		if err != nil {
			return err
		}
		return s.setFilter(f)
	}, ask: func(s *sock, v []byte) ([]byte, error) {
		f, err := decode(v, false)
		if err != nil {
			return nil, err
		}
		if !f.group.IsMulticast() {
			return nil, unix.EINVAL
		}
		nic := s.interfaceOf(f.groupReq)
		if nic == 0 {
			return nil, unix.ENODEV
		}
		i := s.memberAt(f.group, nic)
		if i < 0 {
			return nil, unix.EADDRNOTAVAIL
		}
		f.include, f.sources = s.groups[i].include, s.groups[i].sources
		return f.encode(f), nil
	}}
}

// setFilter replaces a membership's list of sources (ip_mc_msfilter).
func (s *sock) setFilter(f groupFilter) error {
	if !f.group.IsMulticast() {
		return unix.EINVAL
	}
	nic := s.interfaceOf(f.groupReq)
	if nic == 0 {
		return unix.ENODEV
	}
	if f.include && len(f.sources) == 0 {
		return s.leaveGroup(f.groupReq)
	}
	i := s.memberAt(f.group, nic)
	if i < 0 {
		return unix.EINVAL
	}
	s.groups = slices.Clone(s.groups)
	s.groups[i].include, s.groups[i].sources, s.groups[i].filtered = f.include, f.sources, len(f.sources) > 0
	return nil
}

// hears tells whether a datagram that has reached the endpoint is for the socket:
// one to a group if the socket is a member and the source is wanted, or if it takes
// the groups of others too (IP_MULTICAST_ALL, net/ipv4/igmp.c:ip_mc_sf_allow); and
// one to a connected socket only if it was sent to the socket's own address.
func (s *packetSocket) hears(m *stacks.Message) bool {
	if dev := s.endpoint().SocketOptions().GetBindToDevice(); dev != 0 && m.IfIndex != 0 && m.IfIndex != int(dev) {
		return false // bound to it only now
	}
	to := m.Local.Unmap().WithZone("")
	if s.proto == unix.IPPROTO_UDP && to.IsValid() {
		if local, remote := s.Names(); remote.IsValid() && !local.Addr().IsUnspecified() && local.Addr().Unmap().WithZone("") != to {
			return false
		}
	}
	return s.hearsGroup(m)
}

// hearsGroup is hears as far as groups are concerned.
func (s *sock) hearsGroup(m *stacks.Message) bool {
	to := m.Local.Unmap().WithZone("")
	if !to.IsMulticast() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.memberAt(to, tcpip.NICID(m.IfIndex))
	if i < 0 {
		if to.Is4() {
			v, err := multicastAll4.get(s, nil)
			return err == nil && v[0] != 0
		}
		return s.val(optKey{ip6, unix.IPV6_MULTICAST_ALL}, 1) != 0
	}
	return slices.Contains(s.groups[i].sources, m.Peer.Addr().Unmap().WithZone("")) == s.groups[i].include
}

// noGroups tells whether a destination is a group that Linux has no route to: of
// IPv6, on the loopback interface, which is none for multicast.
//
// +checklocks:s.mu
func (s *sock) noGroups(f tcpip.FullAddress) bool {
	to := addrOf(s.family, f.Addr, 0)
	if !to.IsMulticast() || to.Is4() || to.Is4In6() {
		return false
	}
	nic := f.NIC
	if nic == 0 {
		nic = tcpip.NICID(s.endpoint().SocketOptions().GetBindToDevice())
	}
	if n, err := s.endpoint().GetSockOptInt(tcpip.IPv6MulticastInterfaceOption); nic == 0 && err == nil {
		nic = tcpip.NICID(n)
	}
	return nic == loopbackNIC
}
