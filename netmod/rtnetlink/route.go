// SPDX-License-Identifier: Apache-2.0

// The routing tables: RTM_GETROUTE.

package rtnetlink

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

// IPv6 metrics, linux/ipv6_route.h.
const (
	metricUser     = 1024
	metricAddrconf = 256
)

var multicast6 = netip.MustParsePrefix("ff00::/8")

// An entry is a route as the kernel's tables hold it.
type entry struct {
	dst     netip.Prefix
	gateway netip.Addr
	src     netip.Addr
	oif     int
	metric  uint32
	table   uint32
	mtu     uint32 // 0: that of the interface
	flags   uint32 // RTNH_F_*
	typ     uint8  // RTN_*
	proto   uint8
	scope   uint8
}

// refuses is the errno that packets along e fail with, or 0.
func (e *entry) refuses() unix.Errno {
	r := stacks.Route{Type: int(e.typ)}
	return r.Refuses()
}

// entries builds all tables, in the order of a dump: IPv4 before IPv6, and by the
// number of the table.
func entries(s stacks.State) []entry {
	var main, local []entry
	for _, route := range s.Routes {
		if e, ok := tableEntry(s, route); ok {
			main = append(main, e)
		}
	}
	for i := range s.Interfaces {
		local = append(local, localEntries(&s.Interfaces[i])...)
	}
	all := append(main, local...)
	slices.SortStableFunc(all, func(a, b entry) int {
		return cmp.Or(
			cmp.Compare(a.dst.Addr().BitLen(), b.dst.Addr().BitLen()),
			cmp.Compare(a.table&255, b.table&255), // FIB_TABLE_HASHSZ; main is 254, local 255
			cmp.Compare(a.table, b.table),
			a.dst.Addr().Compare(b.dst.Addr()),
			cmp.Compare(b.dst.Bits(), a.dst.Bits()), // the longest first
			cmp.Compare(a.metric, b.metric),
		)
	})
	// A stack may list a route twice, as connected and as configured; a table
	// holds it once (EEXIST).
	return slices.CompactFunc(all, func(a, b entry) bool {
		return a.dst == b.dst && a.table == b.table && a.metric == b.metric && a.oif == b.oif && a.gateway == b.gateway &&
			(a.typ == b.typ && a.proto == b.proto && a.scope == b.scope && a.mtu == b.mtu || a.table == unix.RT_TABLE_LOCAL)
	})
}

// tableEntry is the entry that a route makes; !ok: it belongs to the table local,
// which localEntries makes, or its interface is down.
func tableEntry(s stacks.State, r stacks.Route) (entry, bool) {
	e := entry{
		dst: r.Dst.Masked(), gateway: r.Gateway, src: r.Src, oif: r.IfIndex, metric: uint32(r.Metric), mtu: uint32(r.MTU),
		table: unix.RT_TABLE_MAIN, typ: unix.RTN_UNICAST, proto: unix.RTPROT_BOOT, scope: unix.RT_SCOPE_UNIVERSE,
	}
	six := e.dst.Addr().Is6()
	if r.Table != 0 {
		e.table = uint32(r.Table)
	}
	if r.Type != 0 {
		e.typ = uint8(r.Type)
	}
	if r.OnLink {
		e.flags = unix.RTNH_F_ONLINK
	}
	if r.Proto != 0 {
		e.proto = uint8(r.Proto)
	}
	if six && e.metric == 0 {
		e.metric = metricUser
	}
	if e.refuses() != 0 {
		if six {
			e.oif = 1 // the null device of IPv6
		} else if r.Proto != 0 {
			e.scope = uint8(r.Scope)
		}
		return e, true
	}
	ifc := byIndex(s, r.IfIndex)
	if ifc == nil || !ifc.Up {
		return e, false // the kernel removes them when the interface goes down
	}
	switch {
	case !r.Main():
	case e.dst == multicast6:
		return e, false
	default:
		if own := e.follow(ifc, r); own {
			return e, false
		}
	}
	switch {
	case six:
	case r.Proto != 0:
		e.scope = uint8(r.Scope)
	case !e.gateway.IsValid():
		e.scope = unix.RT_SCOPE_LINK
	}
	return e, true
}

// follow sets what follows from the addresses of the interface; own: the route
// leads to one of them.
func (e *entry) follow(ifc *stacks.Interface, r stacks.Route) (own bool) {
	for n, p := range ifc.Addrs {
		if p.Addr().BitLen() != e.dst.Addr().BitLen() {
			continue
		}
		if e.dst.IsSingleIP() && p.Addr() == e.dst.Addr() && r.Proto == 0 && (p.Addr().Is4() || p != e.dst || p == loopback6) {
			return true
		}
		if e.gateway.IsValid() || ifc.Network(p) != e.dst || r.Proto != 0 {
			continue
		}
		if ifc.Loop && p.Addr().Is4() {
			return true
		}
		e.proto = unix.RTPROT_KERNEL
		switch {
		case e.dst.Addr().Is6():
			e.src = netip.Addr{} // IPv6 selects a source by RFC 6724 instead
			if r.Metric == 0 {
				e.metric = metricAddrconf
			}
		case !e.src.IsValid():
			e.src = primary(ifc, n)
		}
	}
	return false
}

// localEntries are the routes that follow from the addresses of an interface:
// net/ipv4/fib_frontend.c:fib_add_ifaddr, net/ipv6/addrconf.c:addrconf_add_dev.
func localEntries(ifc *stacks.Interface) []entry {
	var out []entry
	has6 := false
	add := func(dst netip.Prefix, typ, scope uint8, src netip.Addr, metric uint32) {
		out = append(out, entry{dst: dst, src: src, oif: ifc.Index, metric: metric,
			table: unix.RT_TABLE_LOCAL, typ: typ, proto: unix.RTPROT_KERNEL, scope: scope})
	}
	for n, p := range ifc.Addrs {
		a := p.Addr()
		host := netip.PrefixFrom(a, a.BitLen())
		if a.Is6() {
			if !ifc.Up {
				continue
			}
			add(host, unix.RTN_LOCAL, unix.RT_SCOPE_UNIVERSE, netip.Addr{}, 0)
			has6 = true
			continue
		}
		add(host, unix.RTN_LOCAL, unix.RT_SCOPE_HOST, primary(ifc, n), 0)
		if secondary(ifc, n) {
			continue
		}
		// What is ours is so also while its interface is down.
		network := ifc.Network(p)
		if ifc.Loop && (p.Bits() < 32 || network != p) {
			add(network, unix.RTN_LOCAL, unix.RT_SCOPE_HOST, a, uint32(ifc.Info[p].Metric))
		}
		if !ifc.Up {
			continue
		}
		brd := ifc.Info[p].Broadcast
		if p.Bits() < 31 {
			last := lastOf(network)
			add(netip.PrefixFrom(last, 32), unix.RTN_BROADCAST, unix.RT_SCOPE_LINK, a, 0)
			if brd == last {
				brd = netip.Addr{}
			}
		}
		if brd.IsValid() && !brd.IsUnspecified() && brd != broadcast4 {
			add(netip.PrefixFrom(brd, 32), unix.RTN_BROADCAST, unix.RT_SCOPE_LINK, a, 0)
		}
	}
	if has6 && !ifc.Loop {
		out = append(out, entry{dst: multicast6, oif: ifc.Index, metric: metricAddrconf,
			table: unix.RT_TABLE_LOCAL, typ: unix.RTN_MULTICAST, proto: unix.RTPROT_KERNEL})
	}
	return out
}

// lastOf is the broadcast address of an IPv4 prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := range b {
		host := min(8, max(0, 8*(i+1)-p.Bits())) // host bits in this byte
		b[i] |= byte(1<<host - 1)
	}
	return netip.AddrFrom4(b)
}

// routes dumps the tables.
func (r *request) routes(w *nlmsg.Writer) *nlmsg.Failure {
	h := r.fixed(unix.SizeofRtMsg)
	var table, oif uint32
	var proto, typ uint8
	flags := uint16(unix.NLM_F_MULTI)
	if r.opts.Strict {
		if attrU32(h[8:])&cloned != 0 {
			w.Filtered = unix.NLM_F_DUMP_FILTERED
			return nil // only exceptions, of which there are none
		}
		flags |= unix.NLM_F_DUMP_FILTERED // at least those are left out
		attrs := r.attrs(unix.SizeofRtMsg)
		table, proto, typ = uint32(h[4]), h[5], h[7]
		if t := attrU32(attrs[unix.RTA_TABLE]); t != 0 {
			table = t
		}
		if oif = attrU32(attrs[unix.RTA_OIF]); attrs[unix.RTA_OIF] != nil && byIndex(r.state, int(oif)) == nil {
			return nlmsg.Fail(unix.ENODEV, "")
		}
	}
	if table != 0 || proto != 0 || typ != 0 || oif != 0 {
		w.Filtered = unix.NLM_F_DUMP_FILTERED
	}
	if f := r.noTable(int(table)); f != nil {
		return f
	}
	for _, e := range entries(r.state) {
		if !r.wants(familyOf(e.dst.Addr())) ||
			table != 0 && table != e.table || proto != 0 && proto != e.proto ||
			typ != 0 && typ != e.typ || oif != 0 && int(oif) != e.oif {
			continue
		}
		e.write(w, unix.RTM_NEWROUTE, flags)
	}
	return nil
}

// noTable fails a dump of a table that does not exist.
func (r *request) noTable(table int) *nlmsg.Failure {
	family := r.family()
	switch {
	case table == 0 || table == unix.RT_TABLE_MAIN || table == unix.RT_TABLE_LOCAL,
		slices.Contains(r.state.Tables, stacks.Table{Family: family, ID: table}):
		return nil
	case family == unix.AF_INET:
		return nlmsg.Fail(unix.ENOENT, "ipv4: FIB table does not exist")
	case family == unix.AF_INET6:
		return nlmsg.Fail(unix.ENOENT, "ipv6: FIB table does not exist")
	}
	return nil
}

// write writes the entry, in a message of type typ.
func (e *entry) write(w *nlmsg.Writer, typ, flags uint16) {
	a := e.dst.Addr()
	w.Begin(typ, flags)
	w.U8(uint8(familyOf(a)), uint8(e.dst.Bits()), 0, 0, shortTable(e.table), e.proto, e.scope, e.typ)
	w.U32(e.flags)
	w.AttrU32(unix.RTA_TABLE, e.table)
	if e.dst.Bits() > 0 {
		w.AttrAddr(unix.RTA_DST, a)
	}
	if a.Is6() || e.metric != 0 {
		w.AttrU32(unix.RTA_PRIORITY, e.metric)
	}
	e.metrics(w)
	if e.src.IsValid() {
		w.AttrAddr(unix.RTA_PREFSRC, e.src)
	}
	if e.gateway.IsValid() {
		w.AttrAddr(unix.RTA_GATEWAY, e.gateway.WithZone(""))
	}
	if e.oif != 0 {
		w.AttrU32(unix.RTA_OIF, uint32(e.oif))
	}
	if a.Is6() {
		w.AttrZero(unix.RTA_CACHEINFO, 32)
		w.AttrU8(unix.RTA_PREF, 0) // medium, RFC 4191
	}
	w.End()
}

// metrics writes RTA_METRICS if the route has any.
func (e *entry) metrics(w *nlmsg.Writer) {
	if e.mtu != 0 {
		w.Attr(unix.RTA_METRICS, nlmsg.AppendAttr(nil, unix.RTAX_MTU, binary.NativeEndian.AppendUint32(nil, e.mtu)))
	}
}

// shortTable is the table as the header of a message has room for it.
func shortTable(table uint32) uint8 {
	if table < 256 {
		return uint8(table)
	}
	return unix.RT_TABLE_COMPAT
}
