// SPDX-License-Identifier: Apache-2.0

// The routing policy: rules, tables, and what they say of what a socket sends.
//
// gVisor has one table, in which a destination is served or left to shorter prefixes,
// and no rules. So the way of what a socket sends is decided here, with all that rules
// look at, and gVisor is told the interface. What did not ask - answers, and segments
// of connections that are older than the rules - is judged when it leaves.

package netstack

import (
	"cmp"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"umrun/stacks"
)

// A policy is the routing policy of a State. It does not change.
type policy struct {
	// plain says that there is nothing to decide: rules are the kernel's own and no
	// route refuses packets.
	plain bool

	rules  []stacks.Rule
	marked bool                   // some of them look at what only the socket knows
	tables map[int][]stacks.Route // by number; of both families, the best first
	gv     []tcpip.Route          // gVisor's table

	names map[int]string      // of interfaces, by index
	up    map[int]bool        // by index
	own   map[netip.Addr]bool // with the broadcast addresses of networks
	loop  string              // the name of the loopback interface

	looped []netip.Prefix // its networks of IPv4, all of whose addresses are the view's
}

// A course is where the policy has a flow go.
type course struct {
	nic   int         // to leave by; 0: the view itself is the destination, or nothing is said
	route tcpip.Route // of nic
	table tcpip.Route // what gVisor would take instead
}

// odd tells whether gVisor must be told the route.
func (v *course) odd() bool {
	r, t := &v.route, &v.table
	return v.nic != 0 && (r.NIC != t.NIC || r.Gateway != t.Gateway || r.SourceHint != t.SourceHint || r.MTU != t.MTU)
}

func newPolicy(st stacks.State) *policy {
	p := &policy{
		plain: st.Rules == nil, rules: st.Policy(),
		tables: make(map[int][]stacks.Route), names: make(map[int]string), up: make(map[int]bool), own: make(map[netip.Addr]bool),
	}
	mtus := make(map[int]int)
	for i := range st.Interfaces {
		ifc := &st.Interfaces[i]
		p.names[ifc.Index], p.up[ifc.Index], mtus[ifc.Index] = ifc.Name, ifc.Up, ifc.MTU
		if ifc.Loop {
			p.loop = ifc.Name
		}
		for _, a := range ifc.Addrs {
			if ifc.Loop && a.Addr().Is4() {
				p.looped = append(p.looped, ifc.Network(a))
			}
			p.own[a.Addr()] = true
			if net := ifc.Network(a); net.Addr().Is4() && net.Bits() < 31 && ifc.Up {
				p.own[lastOf(net)] = true
			}
		}
	}
	asked := make(map[int]bool)
	for i := range p.rules {
		r := &p.rules[i]
		asked[r.Table] = true
		p.marked = p.marked || r.Mask != 0 || r.UIDs.Set || r.Out != "" || r.SPort != stacks.Ports{} || r.DPort != stacks.Ports{}
	}
	var some []stacks.Route
	for _, r := range st.Routes {
		table := cmp.Or(r.Table, unix.RT_TABLE_MAIN)
		if !asked[table] {
			continue
		}
		if r.MTU >= mtus[r.IfIndex] {
			r.MTU = 0
		}
		p.tables[table] = append(p.tables[table], r)
		p.plain = p.plain && r.Refuses() == 0
		if r.Refuses() == 0 {
			some = append(some, r)
		}
	}
	for _, t := range p.tables {
		best(t)
	}
	best(some)
	for _, r := range some {
		p.gv = append(p.gv, gvRoute(r))
	}
	p.gv = append(p.gv, loopRoutes(st)...)
	return p
}

// best sorts routes: the longest prefix first, of those the lowest metric.
func best(routes []stacks.Route) {
	slices.SortStableFunc(routes, func(a, b stacks.Route) int {
		return cmp.Or(cmp.Compare(b.Dst.Bits(), a.Dst.Bits()), cmp.Compare(a.Metric, b.Metric))
	})
}

// lastOf is the broadcast address of an IPv4 network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// local tells whether a is of the table local, which follows from the addresses.
func (p *policy) local(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || a.Is6() && a.IsMulticast() || p.own[a] ||
		slices.ContainsFunc(p.looped, func(n netip.Prefix) bool { return n.Contains(a) })
}

// judge says where a flow goes that is bound to the interface oif (0: none), or what
// it fails with.
func (p *policy) judge(f stacks.Flow, oif int) (course, unix.Errno) {
	f.In, f.Out = p.loop, p.names[oif]
	v, e := stacks.Steer(p.rules, &f, func(table int) stacks.Found[course] { return p.look(table, &f, oif) })
	if f.Dst.IsMulticast() && oif != 0 {
		return course{nic: oif}, 0 // no route is needed
	}
	if e != 0 && f.Dst.Is4() && oif != 0 && p.up[oif] {
		// With an interface and without a route the destination is believed to be on
		// its link (net/ipv4/route.c:ip_route_output_key_hash_rcu).
		return p.by(stacks.Route{Dst: netip.PrefixFrom(f.Dst, 32), IfIndex: oif}, f.Dst), 0
	}
	return v, e
}

// look looks a flow up in one table.
func (p *policy) look(table int, f *stacks.Flow, oif int) stacks.Found[course] {
	if table == unix.RT_TABLE_LOCAL {
		if p.local(f.Dst) {
			return stacks.Found[course]{Bits: f.Dst.BitLen()}
		}
		return stacks.Found[course]{Errno: unix.EAGAIN}
	}
	for _, r := range p.tables[table] {
		if !r.Dst.Contains(f.Dst) {
			continue
		}
		switch e := r.Refuses(); {
		case r.Type == unix.RTN_THROW:
			return stacks.Found[course]{Errno: unix.EAGAIN}
		case e != 0 && (oif == 0 || f.Dst.Is4()):
			return stacks.Found[course]{Errno: e}
		case e != 0, oif != 0 && oif != r.IfIndex, !p.up[r.IfIndex]:
		default:
			return stacks.Found[course]{Route: p.by(r, f.Dst), Bits: r.Dst.Bits()}
		}
	}
	return stacks.Found[course]{Errno: unix.EAGAIN}
}

// by is the course of packets to dst that take the route r.
func (p *policy) by(r stacks.Route, dst netip.Addr) course {
	r.Dst = netip.PrefixFrom(dst, dst.BitLen()) // gVisor takes the longest prefix first
	v := course{nic: r.IfIndex, route: gvRoute(r)}
	to := gvAddr(dst)
	for _, t := range p.gv {
		if int(t.NIC) == v.nic && t.Destination.Contains(to) {
			v.table = t
			break
		}
	}
	return v
}

// flow is what rules see of what s sends to an address, from src or, if that is the
// zero Addr, from what it is bound to.
func (s *sock) flow(dst, src netip.Addr, sport, dport uint16) stacks.Flow {
	f := stacks.Flow{
		Dst: dst.Unmap().WithZone(""), Src: src.Unmap().WithZone(""), Mark: s.endpoint().SocketOptions().GetMark(),
		UID: s.uid.Load(), Proto: uint8(s.proto), SPort: sport, DPort: dport,
	}
	if !f.Src.IsValid() {
		f.Src = s.localName().Addr().Unmap().WithZone("")
	}
	if f.Src.IsUnspecified() || f.Src.IsMulticast() || f.Src.BitLen() != f.Dst.BitLen() {
		f.Src = netip.Addr{}
	}
	return f
}

// steer decides where what s sends to f goes, and sets f.NIC; v is for [Stack.by].
// m says which source and mark the program has chosen, if any; twice says that
// rules are asked again when a source was chosen (net/ipv4/route.c:ip_route_connect).
func (s *sock) steer(f *tcpip.FullAddress, m *stacks.Message, twice bool) (v course, _ error) {
	p := s.st.policy.Load()
	oif := int(f.NIC)
	if oif == 0 {
		oif = int(s.endpoint().SocketOptions().GetBindToDevice())
	}
	dst := addrOf(unix.AF_INET, f.Addr, 0).Unmap()
	named := oif != 0
	if !named && dst.IsMulticast() && !p.plain {
		oif = int(s.multicastNIC())
	}
	if p.plain && oif == 0 || f.Addr.Len() == 0 || oif != 0 && dst.Is6() && (dst.IsLinkLocalUnicast() || dst.IsMulticast()) {
		return course{}, nil
	}
	sport, dport := s.localName().Port(), f.Port
	if s.proto != unix.IPPROTO_TCP && s.proto != unix.IPPROTO_UDP || s.raw != nil {
		sport, dport = 0, 0
	}
	flow := s.flow(dst, m.Local, sport, dport)
	if m.Marked {
		flow.Mark = m.Mark
	}
	v, e := p.judge(flow, oif)
	if again := e == 0 && twice || e != 0 && dst.Is6(); again && !p.plain && !flow.Src.IsValid() {
		if flow.Src = s.st.sourceOf(v, dst); flow.Src.IsValid() {
			v, e = p.judge(flow, oif)
		}
	}
	switch e {
	case 0:
	case unix.ENETUNREACH:
		return course{}, s.noRoute(*f)
	default:
		return course{}, e
	}
	if v.nic != 0 && (named || !dst.IsMulticast()) { // gVisor knows IP_MULTICAST_IF
		f.NIC = tcpip.NICID(v.nic)
	}
	return v, nil
}

// sourceOf is the source that gVisor chooses for packets to dst, the zero Addr if it
// has none.
func (s *Stack) sourceOf(v course, dst netip.Addr) (src netip.Addr) {
	s.by(v, func() {
		r, err := s.gv.FindRoute(tcpip.NICID(v.nic), tcpip.Address{}, gvAddr(dst), protoOf(dst), false)
		if err == nil {
			src = addrOf(unix.AF_INET, r.LocalAddress(), 0)
			r.Release()
		}
	})
	return src
}

// by calls f, which has gVisor look for a route, so that it finds that of v. It is not
// called by f, nor by what gVisor calls.
func (s *Stack) by(v course, f func()) {
	if !v.odd() {
		s.steering.RLock()
		defer s.steering.RUnlock()
		f()
		return
	}
	s.steering.Lock()
	defer s.steering.Unlock()
	p := s.policy.Load()
	s.gv.SetRouteTable(append([]tcpip.Route{v.route}, p.gv...))
	defer s.gv.SetRouteTable(p.gv)
	f()
}

// setPolicy makes routes and rules those of st.
func (s *Stack) setPolicy(st stacks.State) {
	s.steering.Lock()
	defer s.steering.Unlock()
	p := newPolicy(st)
	s.policy.Store(p)
	s.gv.SetRouteTable(p.gv)
}

// keeps tells whether the policy keeps a packet from leaving by the interface oif that
// did not ask: an answer, or a segment of TCP.
func (p *policy) keeps(b *stack.PacketBuffer, oif int) bool {
	if p.plain {
		return false
	}
	owner, _ := b.Owner.(*owner)
	if owner != nil && (owner.raw != nil || b.TransportProtocolNumber != header.TCPProtocolNumber) {
		return false // it was judged just now
	}
	f, ok := packetFlow(b)
	if !ok {
		return false
	}
	bound := 0
	if owner != nil {
		f.UID, bound = owner.uid.Load(), int(owner.endpoint().SocketOptions().GetBindToDevice())
	} else if f.Dst.IsMulticast() || f.Dst.IsLinkLocalUnicast() {
		return false // IGMP, MLD, neighbour discovery
	} else if isFragment(b) && (p.marked || f.Proto != unix.IPPROTO_ICMP && f.Proto != unix.IPPROTO_ICMPV6) {
		return false // gVisor's fragments have no owner: that of the whole was judged; of ICMP there are answers, too
	}
	v, e := p.judge(f, bound)
	return e != 0 || v.nic != 0 && v.nic != oif
}

// packetFlow is what rules see of a packet.
func packetFlow(b *stack.PacketBuffer) (f stacks.Flow, ok bool) {
	f.Mark = b.Mark
	switch h := b.NetworkHeader().Slice(); {
	case b.NetworkProtocolNumber == header.IPv4ProtocolNumber && len(h) >= header.IPv4MinimumSize:
		ip := header.IPv4(h)
		f.Src, f.Dst, f.Proto = addrOf(unix.AF_INET, ip.SourceAddress(), 0), addrOf(unix.AF_INET, ip.DestinationAddress(), 0), ip.Protocol()
	case b.NetworkProtocolNumber == header.IPv6ProtocolNumber && len(h) >= header.IPv6MinimumSize:
		ip := header.IPv6(h)
		f.Src, f.Dst, f.Proto = addrOf(unix.AF_INET6, ip.SourceAddress(), 0), addrOf(unix.AF_INET6, ip.DestinationAddress(), 0), uint8(b.TransportProtocolNumber)
		if at := len(h) - header.IPv6FragmentHeaderSize; isFragment(b) && at >= header.IPv6MinimumSize {
			f.Proto = h[at] // gVisor puts the fragment header last
		}
	default:
		return f, false
	}
	if h := b.TransportHeader().Slice(); len(h) >= header.TCPMinimumSize && b.TransportProtocolNumber == header.TCPProtocolNumber {
		f.SPort, f.DPort = header.TCP(h).SourcePort(), header.TCP(h).DestinationPort()
	}
	return f, true
}

// isFragment tells whether a packet is one.
func isFragment(b *stack.PacketBuffer) bool {
	h := b.NetworkHeader().Slice()
	if b.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		return header.IPv4(h).More() || header.IPv4(h).FragmentOffset() != 0
	}
	return header.IPv6(h).NextHeader() == unix.IPPROTO_FRAGMENT
}

// An owner is a socket as its packets know it.
type owner struct{ *sock }

func (o *owner) KUID() uint32 { return o.uid.Load() }
func (o *owner) KGID() uint32 { return 0 }
