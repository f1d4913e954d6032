// SPDX-License-Identifier: Apache-2.0

// Routes that are added and removed: RTM_NEWROUTE, RTM_DELROUTE.

package rtnetlink

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

const (
	scopeAny = unix.RT_SCOPE_NOWHERE // in a request to delete
	minMTU4  = 68                    // RFC 791

	rtaNHID = 30 // RTA_NH_ID
)

// A wanted is what a request says of a route.
type wanted struct {
	dst          netip.Prefix
	gateway, src netip.Addr
	oif          int    // 0: not said
	metric       uint32 // 0: not said
	table        uint32
	mtu          uint32
	typ          uint8
	proto        uint8
	scope        uint8
	onLink       bool // the gateway is a neighbour, whatever the routes say
}

// changeRoute adds or removes a route.
func (r *request) changeRoute(e *editor) *nlmsg.Failure {
	if len(r.body) < unix.SizeofRtMsg {
		return nlmsg.Fail(unix.EINVAL, "")
	}
	family := r.family()
	if family != unix.AF_INET && family != unix.AF_INET6 {
		return nlmsg.Fail(unix.EOPNOTSUPP, "")
	}
	w, f := r.wanted()
	switch {
	case f != nil:
		return f
	case r.typ == unix.RTM_DELROUTE:
		return e.removeRoute(w)
	}
	return e.addRoute(w, r.flags)
}

// wanted reads a request: rtm_to_fib_config and rtm_to_fib6_config. What is not
// modelled is refused.
func (r *request) wanted() (wanted, *nlmsg.Failure) {
	family, bits := r.family(), int(r.body[1])
	attrs := r.attrs(unix.SizeofRtMsg)
	flags := attrU32(r.body[8:])
	w := wanted{
		oif: int(int32(attrU32(attrs[unix.RTA_OIF]))), metric: attrU32(attrs[unix.RTA_PRIORITY]), table: attrU32(attrs[unix.RTA_TABLE]),
		proto: r.body[5], scope: r.body[6], typ: r.body[7], onLink: flags&unix.RTNH_F_ONLINK != 0,
	}
	var ok [3]bool
	var dst netip.Addr
	dst, ok[0] = attrAddr(attrs[unix.RTA_DST], family)
	w.gateway, ok[1] = attrAddr(attrs[unix.RTA_GATEWAY], family)
	w.src, ok[2] = attrAddr(attrs[unix.RTA_PREFSRC], family)
	if !dst.IsValid() {
		dst = netip.IPv4Unspecified()
		if family == unix.AF_INET6 {
			dst = netip.IPv6Unspecified()
		}
	}
	if slices.Contains(ok[:], false) || bits > dst.BitLen() {
		return w, nlmsg.Fail(unix.EINVAL, "")
	}
	if w.gateway.IsValid() && w.gateway.IsUnspecified() {
		w.gateway = netip.Addr{}
	}
	w.dst = netip.PrefixFrom(dst, bits).Masked()
	if w.dst.Addr() != dst && family == unix.AF_INET {
		return w, nlmsg.Fail(unix.EINVAL, "Invalid prefix for given prefix length")
	}
	if w.table == 0 {
		w.table = uint32(r.body[4])
	}
	if w.table == 0 {
		w.table = unix.RT_TABLE_MAIN
	}
	if flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0 && family == unix.AF_INET {
		return w, nlmsg.Fail(unix.EINVAL, "Invalid rtm_flags - can not contain DEAD or LINKDOWN")
	}
	if attrs[rtaNHID] != nil {
		return w, nlmsg.Fail(unix.EINVAL, "Nexthop id does not exist") // there are none
	}
	if r.typ == unix.RTM_DELROUTE {
		return w, nil
	}
	switch {
	case attrs[unix.RTA_MULTIPATH] != nil:
		return w, nlmsg.Fail(unix.EOPNOTSUPP, "routes with more than one next hop are not supported")
	case attrs[unix.RTA_VIA] != nil, attrs[unix.RTA_ENCAP] != nil, attrs[unix.RTA_FLOW] != nil, attrs[unix.RTA_EXPIRES] != nil,
		r.body[3] != 0, r.body[2] != 0:
		return w, nlmsg.Fail(unix.EOPNOTSUPP, "only routes by destination are supported, to a gateway of the same family")
	case w.table == unix.RT_TABLE_LOCAL || w.table == unix.RT_TABLE_DEFAULT:
		return w, nlmsg.Fail(unix.EOPNOTSUPP, "the tables local and default cannot be changed")
	}
	for typ, v := range nlmsg.Attrs(attrs[unix.RTA_METRICS], 0) {
		if typ != unix.RTAX_MTU {
			return w, nlmsg.Fail(unix.EOPNOTSUPP, "of the metrics only the MTU is supported")
		}
		if w.mtu = attrU32(v); w.mtu > 65535-15 { // fib_metrics.c:ip_metrics_convert
			w.mtu = 65535 - 15
		}
		if w.mtu < minMTU4 {
			return w, nlmsg.Fail(unix.EOPNOTSUPP, "the MTU of a route is 68 at least")
		}
	}
	return w, r.routeType(&w)
}

// routeType checks the type of a route against the rest: fib_create_info,
// fib_props and ip6_route_info_create.
func (r *request) routeType(w *wanted) *nlmsg.Failure {
	six := w.dst.Addr().Is6()
	switch w.typ {
	case unix.RTN_UNICAST:
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
		if six {
			w.gateway, w.oif, w.onLink = netip.Addr{}, 0, false // not looked at
			break
		}
		if w.gateway.IsValid() || w.oif != 0 {
			return nlmsg.Fail(unix.EINVAL, "Gateway, device and multipath can not be specified for this route type")
		}
	case unix.RTN_UNSPEC:
		if !six {
			return nlmsg.Fail(unix.EINVAL, "Invalid scope")
		}
		w.typ = unix.RTN_UNICAST
	case unix.RTN_LOCAL, unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST:
		return nlmsg.Fail(unix.EOPNOTSUPP, "routes of this type follow from addresses")
	case unix.RTN_NAT, unix.RTN_XRESOLVE:
		return nlmsg.Fail(unix.EINVAL, "Invalid scope")
	default:
		return nlmsg.Fail(unix.EINVAL, "Invalid route type")
	}
	switch {
	case six:
	case w.scope > unix.RT_SCOPE_HOST:
		return nlmsg.Fail(unix.EINVAL, "Invalid scope")
	case w.scope == unix.RT_SCOPE_HOST && w.gateway.IsValid():
		return nlmsg.Fail(unix.EINVAL, "Route with host scope can not have a gateway")
	case w.scope == unix.RT_SCOPE_HOST:
		return nlmsg.Fail(unix.EOPNOTSUPP, "routes of host scope are not supported")
	case w.scope >= unix.RT_SCOPE_LINK && w.gateway.IsValid() && w.onLink:
		return nlmsg.Fail(unix.EINVAL, "Nexthop has invalid scope")
	case w.scope >= unix.RT_SCOPE_LINK && w.gateway.IsValid():
		return nlmsg.Fail(unix.ENETUNREACH, "Nexthop has invalid gateway")
	}
	return nil
}

// removeRoute removes the first route that fits: fib_table_delete and
// ip6_route_del.
func (e *editor) removeRoute(w wanted) *nlmsg.Failure {
	four := w.dst.Addr().Is4()
	first, metric := -1, uint32(0)
	for i, route := range e.Routes {
		x, ok := tableEntry(e.State, route)
		if !ok || x.table != w.table || x.dst != w.dst || w.oif != 0 && x.oif != w.oif || w.metric != 0 && x.metric != w.metric ||
			w.gateway.IsValid() && x.gateway.WithZone("") != w.gateway || w.src.IsValid() && x.src != w.src ||
			w.proto != 0 && w.proto != x.proto ||
			four && (w.typ != 0 && w.typ != x.typ || w.scope != scopeAny && w.scope != x.scope) {
			continue
		}
		if first < 0 || four && x.metric < metric { // a table of IPv4 has an order
			first, metric = i, x.metric
		}
	}
	if first >= 0 {
		e.Routes = slices.Delete(e.Routes, first, first+1)
		return nil
	}
	if w.table != unix.RT_TABLE_LOCAL && w.table != unix.RT_TABLE_MAIN && !slices.Contains(e.Tables, stacks.Table{Family: familyOf(w.dst.Addr()), ID: int(w.table)}) {
		return nlmsg.Fail(unix.ESRCH, "FIB table does not exist")
	}
	if w.table == unix.RT_TABLE_LOCAL && slices.ContainsFunc(entries(e.State), func(x entry) bool { return x.table == w.table && x.dst == w.dst }) {
		return nlmsg.Fail(unix.EOPNOTSUPP, "the table local cannot be changed")
	}
	return nlmsg.Fail(unix.ESRCH, "")
}

// addRoute adds a route: fib_table_insert and fib6_add_rt2node. flags are those
// of the request, which say what to do when there is one already.
func (e *editor) addRoute(w wanted, flags uint16) *nlmsg.Failure {
	route := stacks.Route{Dst: w.dst, MTU: int(w.mtu), Proto: int(w.proto), Scope: int(w.scope), OnLink: w.onLink}
	if w.table != unix.RT_TABLE_MAIN {
		route.Table = int(w.table)
		if t := (stacks.Table{Family: familyOf(w.dst.Addr()), ID: int(w.table)}); !slices.Contains(e.Tables, t) {
			e.Tables = append(e.Tables, t)
		}
	}
	if w.typ != unix.RTN_UNICAST {
		route.Type = int(w.typ)
	}
	if route.Refuses() == 0 {
		if f := e.nextHop(&w); f != nil {
			return f
		}
	}
	if w.src.IsValid() && !own(e.State, w.src) {
		return nlmsg.Fail(unix.EINVAL, "Invalid prefsrc address")
	}
	if w.dst.Addr().Is6() && w.metric == 0 {
		w.metric = metricUser
	}
	route.Gateway, route.Src, route.IfIndex, route.Metric = w.gateway, w.src, w.oif, int(w.metric)
	added, _ := tableEntry(e.State, route)
	var alike []int // of the same destination and metric: a position in the table
	for i, r := range e.Routes {
		if x, ok := tableEntry(e.State, r); ok && x.table == w.table && x.dst == w.dst && x.metric == w.metric {
			alike = append(alike, i)
		}
	}
	same := slices.IndexFunc(alike, func(i int) bool {
		x, _ := tableEntry(e.State, e.Routes[i])
		x.gateway = x.gateway.WithZone("")
		if w.dst.Addr().Is6() { // rt6_duplicate_nexthop
			return x.oif == added.oif && x.gateway == added.gateway
		}
		return x == added
	})
	switch {
	case len(alike) > 0 && flags&unix.NLM_F_EXCL != 0:
		return nlmsg.Fail(unix.EEXIST, "")
	case len(alike) > 0 && flags&unix.NLM_F_REPLACE != 0:
		if same > 0 {
			return nlmsg.Fail(unix.EEXIST, "")
		}
		e.Routes[alike[0]] = route
	case same >= 0:
		return nlmsg.Fail(unix.EEXIST, "")
	case len(alike) > 0 && flags&unix.NLM_F_APPEND == 0 && w.dst.Addr().Is4():
		e.Routes = slices.Insert(e.Routes, alike[0], route)
	case len(alike) == 0 && flags&unix.NLM_F_CREATE == 0:
		return nlmsg.Fail(unix.ENOENT, "")
	default:
		e.Routes = append(e.Routes, route)
	}
	return nil
}

// nextHop checks by which way the next hop is reached, and sets the interface if
// it is not said: fib_check_nh and ip6_route_check_nh.
func (e *editor) nextHop(w *wanted) *nlmsg.Failure {
	four := w.dst.Addr().Is4()
	invalid := nlmsg.Fail(unix.ENETUNREACH, "Nexthop has invalid gateway")
	if !four {
		invalid = nlmsg.Fail(unix.EHOSTUNREACH, "")
	}
	var ifc *stacks.Interface
	if w.oif != 0 {
		if ifc = byIndex(e.State, w.oif); ifc == nil {
			return nlmsg.Fail(unix.ENODEV, "")
		}
		if !ifc.Up {
			return nlmsg.Fail(unix.ENETDOWN, "Device for nexthop is not up")
		}
	}
	switch {
	case !w.gateway.IsValid():
		if ifc == nil {
			return nlmsg.Fail(unix.ENODEV, "")
		}
		return nil
	case !four && w.gateway.IsLinkLocalUnicast():
		if ifc == nil {
			return nlmsg.Fail(unix.EINVAL, "Egress device not specified")
		}
		return nil
	case w.onLink && ifc == nil:
		return nlmsg.Fail(unix.ENODEV, "Nexthop device required for onlink")
	case w.onLink:
		return nil
	}
	// The gateway must be a neighbour: on a network that needs no gateway.
	var best entry
	for _, x := range entries(e.State) {
		if x.table != unix.RT_TABLE_MAIN && x.table != unix.RT_TABLE_LOCAL && x.table != w.table {
			continue
		}
		if !x.dst.Contains(w.gateway) || w.oif != 0 && x.oif != w.oif || x.gateway.IsValid() && !four {
			continue
		}
		if !best.dst.IsValid() || better(x, best) {
			best = x
		}
	}
	switch {
	case !best.dst.IsValid() || best.gateway.IsValid():
		return invalid
	case best.typ != unix.RTN_UNICAST && best.typ != unix.RTN_LOCAL:
		return nlmsg.Fail(unix.EINVAL, "Nexthop has invalid gateway")
	}
	if w.oif == 0 {
		w.oif = best.oif
	}
	return nil
}
