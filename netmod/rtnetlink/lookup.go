// SPDX-License-Identifier: Apache-2.0

// The route to one address: ip route get.

package rtnetlink

import (
	"encoding/binary"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

// Attributes of a request for a route that rules look at, and flags of a resolved
// route, linux/in_route.h.
const (
	rtaIPProto = 27 // RTA_IP_PROTO
	rtaSPort   = 28 // RTA_SPORT
	rtaDPort   = 29 // RTA_DPORT

	rtcfLocal     = 0x80000000
	rtcfBroadcast = 0x10000000
	rtcfMulticast = 0x20000000
)

var (
	broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	allHosts   = netip.AddrFrom4([4]byte{224, 0, 0, 1})
)

// oneRoute answers where packets to an address go.
func (r *request) oneRoute(w *nlmsg.Writer) *nlmsg.Failure {
	if len(r.body) < unix.SizeofRtMsg {
		return nlmsg.Fail(unix.EINVAL, "Invalid header for get route request")
	}
	family := r.family()
	if family != unix.AF_INET && family != unix.AF_INET6 {
		return nlmsg.Fail(unix.EOPNOTSUPP, "")
	}
	attrs := r.attrs(unix.SizeofRtMsg)
	dst, ok1 := attrAddr(attrs[unix.RTA_DST], family)
	src, ok2 := attrAddr(attrs[unix.RTA_SRC], family)
	if !ok1 || !ok2 {
		return nlmsg.Fail(unix.EINVAL, "")
	}
	if attrU32(attrs[unix.RTA_IIF]) != 0 {
		return nlmsg.Fail(unix.EOPNOTSUPP, "") // forwarding; a view forwards nothing
	}
	if !dst.IsValid() {
		dst = netip.IPv6Unspecified()
		if family == unix.AF_INET {
			dst = netip.IPv4Unspecified()
		}
	}
	oif := int(attrU32(attrs[unix.RTA_OIF]))
	if oif != 0 && byIndex(r.state, oif) == nil && family == unix.AF_INET {
		return nlmsg.Fail(unix.ENODEV, "") // IPv6 looks for routes, and finds none
	}
	uid := uint32(os.Getuid())
	if v := attrs[unix.RTA_UID]; len(v) >= 4 {
		uid = attrU32(v)
	}
	flow := stacks.Flow{Dst: dst, Src: src, Mark: attrU32(attrs[unix.RTA_MARK]), UID: uid}
	if v := attrs[rtaIPProto]; len(v) >= 1 {
		flow.Proto = v[0]
	}
	for typ, port := range map[uint16]*uint16{rtaSPort: &flow.SPort, rtaDPort: &flow.DPort} {
		if v := attrs[typ]; len(v) >= 2 {
			*port = binary.BigEndian.Uint16(v)
		}
	}
	state := r.state
	if r.guide != nil && oif == 0 {
		state = r.guide(flow)
	}
	e, f := lookup(state, flow, oif)
	if f != nil {
		return f
	}
	flags := attrU32(r.body[8:])
	if flags&fibMatch != 0 {
		if e.proto == unix.RTPROT_UNSPEC {
			return nlmsg.Fail(unix.EHOSTUNREACH, "") // an assumption, no entry
		}
		if dst.Is4() {
			if state.Rules == nil {
				e.table = unix.RT_TABLE_MAIN // see resolved4
			}
			e.typ = typeOf(e.typ, dst)
		}
		e.write(w, unix.RTM_NEWROUTE, 0)
		return nil
	}
	if dst.Is4() {
		e.resolved4(w, state, flow, flags&fullTable != 0)
	} else {
		e.resolved6(w, state, dst, src)
	}
	return nil
}

// lookup finds the entry for the packets of a flow by the interface oif (0: any).
func lookup(s stacks.State, f stacks.Flow, oif int) (entry, *nlmsg.Failure) {
	dst := f.Dst
	if f.Src.IsValid() && f.Src.IsUnspecified() {
		f.Src = netip.Addr{}
	}
	if f.Src.Is4() && !own(s, f.Src) {
		return entry{}, nlmsg.Fail(unix.ENETUNREACH, "")
	}
	if dst == netip.IPv4Unspecified() {
		// This host; known without the tables.
		return entry{dst: netip.PrefixFrom(dst, 32), src: netip.AddrFrom4([4]byte{127, 0, 0, 1}), typ: unix.RTN_LOCAL}, nil
	}
	if ifc := byIndex(s, 1); ifc != nil {
		f.In = ifc.Name
	}
	if ifc := byIndex(s, oif); ifc != nil {
		f.Out = ifc.Name
	}
	all := entries(s)
	best, errno := stacks.Steer(s.Policy(), &f, func(table int) stacks.Found[entry] { return inTable(all, uint32(table), dst, oif) })
	switch {
	case errno == 0:
	case dst.Is4() && oif != 0:
		// With a device and without a route, or with one that refuses, the kernel takes the destination
		// for a neighbour.
		best = entry{dst: netip.PrefixFrom(dst, 0).Masked(), oif: oif,
			typ: unix.RTN_UNICAST, scope: unix.RT_SCOPE_LINK}
	default:
		return entry{}, nlmsg.Fail(errno, "")
	}
	return best, nil
}

// inTable is what one table says of packets to dst.
func inTable(all []entry, table uint32, dst netip.Addr, oif int) stacks.Found[entry] {
	var best entry
	for _, e := range all {
		if e.table != table || !e.dst.Contains(dst) || oif != 0 && e.oif != oif && e.typ != unix.RTN_LOCAL && (dst.Is6() || e.refuses() == 0) {
			continue
		}
		if !best.dst.IsValid() || better(e, best) {
			best = e
		}
	}
	errno := best.refuses()
	if !best.dst.IsValid() || best.typ == unix.RTN_THROW {
		errno = unix.EAGAIN
	}
	return stacks.Found[entry]{Route: best, Bits: best.dst.Bits(), Errno: errno}
}

// better orders entries that both match: those of the table local come first.
func better(a, b entry) bool {
	if a.table != b.table {
		return a.table == unix.RT_TABLE_LOCAL
	}
	if a.dst.Bits() != b.dst.Bits() {
		return a.dst.Bits() > b.dst.Bits()
	}
	return a.metric < b.metric
}

// own reports whether a is an address of the stack.
func own(s stacks.State, a netip.Addr) bool {
	for _, ifc := range s.Interfaces {
		for _, p := range ifc.Addrs {
			if p.Addr() == a || ifc.Loop && a.Is4() && p.Contains(a) {
				return true
			}
		}
	}
	return false
}

// source is the address that packets along e get: the preferred one, else one
// that shares a subnet with the next hop, else the first of the interface, else
// the first of all.
func (e *entry) source(s stacks.State, dst netip.Addr) netip.Addr {
	if e.src.IsValid() {
		return e.src
	}
	next := dst
	if e.gateway.IsValid() {
		next = e.gateway
	}
	var onLink, onIface, first netip.Addr
	for _, ifc := range s.Interfaces {
		for _, p := range ifc.Addrs {
			a := p.Addr()
			if a.BitLen() != dst.BitLen() || a.IsLoopback() {
				continue
			}
			// An IPv6 link-local address is no source for what lies beyond the link.
			if a.Is6() && a.IsLinkLocalUnicast() && !dst.IsLinkLocalUnicast() && !dst.IsMulticast() {
				continue
			}
			if !first.IsValid() {
				first = a
			}
			if ifc.Index != e.oif {
				continue
			}
			if !onIface.IsValid() {
				onIface = a
			}
			if !onLink.IsValid() && p.Contains(next) {
				onLink = a
			}
		}
	}
	for _, a := range []netip.Addr{onLink, onIface} {
		if a.IsValid() {
			return a
		}
	}
	return first
}

// typeOf is the type of the path to an IPv4 address by an entry of type typ.
func typeOf(typ uint8, dst netip.Addr) uint8 {
	switch {
	case dst == broadcast4:
		return unix.RTN_BROADCAST
	case dst.IsMulticast():
		return unix.RTN_MULTICAST
	}
	return typ
}

// resolved4 writes the answer of net/ipv4/route.c:rt_fill_info.
func (e *entry) resolved4(w *nlmsg.Writer, s stacks.State, f stacks.Flow, tellTable bool) {
	dst, src := f.Dst, f.Src
	// Without rules of the administrator both tables are one (fib_unmerge), which
	// goes by the name of main.
	table, typ, flags, oif := uint32(unix.RT_TABLE_MAIN), typeOf(e.typ, dst), uint32(cloned), e.oif
	prefsrc := e.source(s, dst)
	gateway := e.gateway
	switch {
	case tellTable && e.proto == unix.RTPROT_UNSPEC:
		table = unix.RT_TABLE_UNSPEC
	case tellTable && s.Rules != nil:
		table = e.table
	}
	if ifc := byIndex(s, oif); ifc != nil && ifc.Loop {
		flags |= rtcfLocal
	}
	switch typ {
	case unix.RTN_LOCAL:
		flags |= rtcfLocal
		oif = 1
	case unix.RTN_BROADCAST:
		flags |= rtcfLocal | rtcfBroadcast
		gateway = netip.Addr{}
	case unix.RTN_MULTICAST:
		flags |= rtcfMulticast
		if dst == allHosts {
			flags |= rtcfLocal // the group that everybody is in
		}
		gateway = netip.Addr{}
	}
	srcLen := uint8(0)
	if src.IsValid() {
		srcLen = 32
	}
	w.Begin(unix.RTM_NEWROUTE, 0)
	w.U8(unix.AF_INET, 32, srcLen, 0, shortTable(table), unix.RTPROT_UNSPEC, unix.RT_SCOPE_UNIVERSE, typ)
	w.U32(flags)
	w.AttrU32(unix.RTA_TABLE, table)
	w.AttrAddr(unix.RTA_DST, dst)
	if src.IsValid() {
		w.AttrAddr(unix.RTA_SRC, src)
	}
	w.AttrU32(unix.RTA_OIF, uint32(oif))
	if prefsrc.IsValid() && (!src.IsValid() || src.IsUnspecified()) {
		w.AttrAddr(unix.RTA_PREFSRC, prefsrc)
	}
	if gateway.IsValid() {
		w.AttrAddr(unix.RTA_GATEWAY, gateway)
	}
	e.metrics(w)
	if f.Mark != 0 {
		w.AttrU32(unix.RTA_MARK, f.Mark)
	}
	w.AttrU32(unix.RTA_UID, f.UID)
	w.AttrZero(unix.RTA_CACHEINFO, 32)
	w.End()
}

// resolved6 writes the answer of net/ipv6/route.c:rt6_fill_node.
func (e *entry) resolved6(w *nlmsg.Writer, s stacks.State, dst, src netip.Addr) {
	oif := e.oif
	prefsrc := e.source(s, dst)
	if e.typ == unix.RTN_LOCAL {
		oif, prefsrc = 1, dst
	}
	if !src.IsValid() {
		src = netip.IPv6Unspecified()
	}
	w.Begin(unix.RTM_NEWROUTE, 0)
	w.U8(unix.AF_INET6, 128, 128, 0, shortTable(e.table), e.proto, e.scope, e.typ)
	w.U32(0)
	w.AttrU32(unix.RTA_TABLE, e.table)
	w.AttrAddr(unix.RTA_DST, dst)
	w.AttrAddr(unix.RTA_SRC, src)
	if prefsrc.IsValid() {
		w.AttrAddr(unix.RTA_PREFSRC, prefsrc)
	}
	w.AttrU32(unix.RTA_PRIORITY, e.metric)
	e.metrics(w)
	if e.gateway.IsValid() {
		w.AttrAddr(unix.RTA_GATEWAY, e.gateway.WithZone(""))
	}
	w.AttrU32(unix.RTA_OIF, uint32(oif))
	w.AttrZero(unix.RTA_CACHEINFO, 32)
	w.AttrU8(unix.RTA_PREF, 0)
	w.End()
}
