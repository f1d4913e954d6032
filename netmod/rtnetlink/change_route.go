// SPDX-License-Identifier: Apache-2.0

// Routes that are added and removed.

package rtnetlink

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"umrun/netmod/nlmsg"
	"umrun/stacks"
)

// wanted is what a request says of a route.
type wanted struct {
	dst          netip.Prefix
	bits         int
	gateway, src netip.Addr
	oif          int    // 0: not said
	metric       uint32 // 0: not said
	proto        uint8
	onLink       bool // the gateway is a neighbour, whatever the routes say
}

// removeRoute removes the first route that fits: fib_table_delete and
// ip6_route_del.
func (e *editor) removeRoute(w wanted) *nlmsg.Failure {
	for i, route := range e.Routes {
		x, ok := mainEntry(e.State, route)
		if !ok || x.dst != w.dst || w.oif != 0 && x.oif != w.oif || w.metric != 0 && x.metric != w.metric ||
			w.gateway.IsValid() && x.gateway.WithZone("") != w.gateway || w.src.IsValid() && x.src != w.src ||
			w.proto != 0 && w.proto != x.proto {
			continue
		}
		if w.dst.Addr().Is4() && w.metric == 0 && x.metric != 0 && e.hasMetric0(w) {
			continue
		}
		e.Routes = slices.Delete(e.Routes, i, i+1)
		return nil
	}
	return nlmsg.Fail(unix.ESRCH, "")
}

// hasMetric0 tells whether the destination has a route without metric, which a
// table of IPv4 lists first.
func (e *editor) hasMetric0(w wanted) bool {
	return slices.ContainsFunc(e.Routes, func(r stacks.Route) bool { return r.Dst == w.dst && r.Metric == 0 })
}

// addRoute adds a route: fib_table_insert and fib6_add_rt2node. flags are those
// of the request, which say what to do when there is one already.
func (e *editor) addRoute(w wanted, flags uint16) *nlmsg.Failure {
	if f := e.nextHop(&w); f != nil {
		return f
	}
	if w.src.IsValid() && !own(e.State, w.src) {
		return nlmsg.Fail(unix.EINVAL, "Invalid prefsrc address")
	}
	if w.dst.Addr().Is6() && w.metric == 0 {
		w.metric = metricUser
	}
	route := stacks.Route{Dst: w.dst, Gateway: w.gateway, Src: w.src, IfIndex: w.oif, Metric: int(w.metric)}
	var alike []int // of the same destination and metric: a position in the table
	for i, r := range e.Routes {
		if x, ok := mainEntry(e.State, r); ok && x.dst == w.dst && x.metric == w.metric {
			alike = append(alike, i)
		}
	}
	same := slices.IndexFunc(alike, func(i int) bool {
		r := e.Routes[i]
		return r.Gateway.WithZone("") == w.gateway && r.IfIndex == w.oif && (r.Src == w.src || w.dst.Addr().Is6())
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
			return nlmsg.Fail(unix.EINVAL, "")
		}
		return nil
	case w.onLink && ifc != nil:
		return nil
	}
	// The gateway must be a neighbour: on a network that needs no gateway.
	var best entry
	for _, x := range entries(e.State) {
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
