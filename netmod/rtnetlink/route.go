// SPDX-License-Identifier: Apache-2.0

// The routing tables: RTM_GETROUTE.

package rtnetlink

import (
	"cmp"
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
	table   uint8
	typ     uint8 // RTN_*
	proto   uint8
	scope   uint8
}

// entries builds both tables, in the order of a dump: IPv4 before IPv6, main
// before local.
func entries(s stacks.State) []entry {
	var main, local []entry
	for _, route := range s.Routes {
		if e, ok := mainEntry(s, route); ok {
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
			cmp.Compare(a.table, b.table), // main is 254, local 255
			a.dst.Addr().Compare(b.dst.Addr()),
			cmp.Compare(b.dst.Bits(), a.dst.Bits()), // the longest first
			cmp.Compare(a.metric, b.metric),
		)
	})
	// A stack may list a route twice, as connected and as configured; a table
	// holds it once (EEXIST).
	return slices.CompactFunc(all, func(a, b entry) bool {
		return a.dst == b.dst && a.table == b.table && a.metric == b.metric && a.oif == b.oif && a.gateway == b.gateway
	})
}

// mainEntry is an entry of the main table; !ok: it belongs to the table local,
// which localEntries makes.
func mainEntry(s stacks.State, r stacks.Route) (entry, bool) {
	e := entry{
		dst: r.Dst.Masked(), gateway: r.Gateway, src: r.Src, oif: r.IfIndex, metric: uint32(r.Metric),
		table: unix.RT_TABLE_MAIN, typ: unix.RTN_UNICAST, proto: unix.RTPROT_BOOT, scope: unix.RT_SCOPE_UNIVERSE,
	}
	ifc := byIndex(s, r.IfIndex)
	if ifc == nil || !ifc.Up {
		return e, false // the kernel removes them when the interface goes down
	}
	connected := false
	for n, p := range ifc.Addrs {
		if p.Addr().BitLen() != e.dst.Addr().BitLen() {
			continue
		}
		if e.dst.IsSingleIP() && p.Addr() == e.dst.Addr() {
			return e, false
		}
		if !e.gateway.IsValid() && p.Masked() == e.dst {
			if ifc.Loop {
				return e, false
			}
			connected = true
			switch {
			case e.dst.Addr().Is6():
				e.src = netip.Addr{} // IPv6 selects a source by RFC 6724 instead
			case !e.src.IsValid():
				e.src = primary(ifc, n)
			}
		}
	}
	if e.dst == multicast6 {
		return e, false
	}
	if connected {
		e.proto = unix.RTPROT_KERNEL
	}
	switch {
	case e.dst.Addr().Is4():
		if !e.gateway.IsValid() {
			e.scope = unix.RT_SCOPE_LINK
		}
	case e.metric == 0 && connected:
		e.metric = metricAddrconf
	case e.metric == 0:
		e.metric = metricUser
	}
	return e, true
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
		if ifc.Loop && p.Bits() < 32 {
			add(p.Masked(), unix.RTN_LOCAL, unix.RT_SCOPE_HOST, a, 0)
		}
		if p.Bits() < 31 && ifc.Up {
			last := lastOf(p)
			add(netip.PrefixFrom(last, 32), unix.RTN_BROADCAST, unix.RT_SCOPE_LINK, a, 0)
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
		if oif = attrU32(attrs[unix.RTA_OIF]); oif != 0 && byIndex(r.state, int(oif)) == nil {
			return nlmsg.Fail(unix.ENODEV, "")
		}
	}
	if table != 0 || proto != 0 || typ != 0 || oif != 0 {
		w.Filtered = unix.NLM_F_DUMP_FILTERED
	}
	for _, e := range entries(r.state) {
		if !r.wants(familyOf(e.dst.Addr())) ||
			table != 0 && table != uint32(e.table) || proto != 0 && proto != e.proto ||
			typ != 0 && typ != e.typ || oif != 0 && int(oif) != e.oif {
			continue
		}
		e.write(w, unix.RTM_NEWROUTE, flags)
	}
	return nil
}

// write writes the entry, in a message of type typ.
func (e *entry) write(w *nlmsg.Writer, typ, flags uint16) {
	a := e.dst.Addr()
	w.Begin(typ, flags)
	w.U8(uint8(familyOf(a)), uint8(e.dst.Bits()), 0, 0, e.table, e.proto, e.scope, e.typ)
	w.U32(0)
	w.AttrU32(unix.RTA_TABLE, uint32(e.table))
	if e.dst.Bits() > 0 {
		w.AttrAddr(unix.RTA_DST, a)
	}
	if a.Is6() || e.metric != 0 {
		w.AttrU32(unix.RTA_PRIORITY, e.metric)
	}
	if e.src.IsValid() {
		w.AttrAddr(unix.RTA_PREFSRC, e.src)
	}
	if e.gateway.IsValid() {
		w.AttrAddr(unix.RTA_GATEWAY, e.gateway.WithZone(""))
	}
	w.AttrU32(unix.RTA_OIF, uint32(e.oif))
	if a.Is6() {
		w.AttrZero(unix.RTA_CACHEINFO, 32)
		w.AttrU8(unix.RTA_PREF, 0) // medium, RFC 4191
	}
	w.End()
}
