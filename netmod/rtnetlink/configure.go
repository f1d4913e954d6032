// SPDX-License-Identifier: Apache-2.0

// What a network tells an interface, as a change: addresses and routes of a lease.

package rtnetlink

import (
	"net/netip"
	"slices"

	"umrun/stacks"
)

// Configure returns the State in which the interface with an index has next instead of
// old, which was applied before. It is as if a program had added and removed what
// differs: routes to networks follow, and what the program itself has changed since
// stays as it is, so that an address which it removed does not come back because its
// life was extended.
func Configure(s stacks.State, index int, old, next stacks.Settings) stacks.State {
	e := edit(s)
	ifc := byIndex(e.State, index)
	if ifc == nil {
		return s
	}
	for _, a := range old.Addrs {
		if n := slices.Index(ifc.Addrs, a.Prefix); n >= 0 && find(next.Addrs, a.Prefix) == nil {
			e.removeAddr(ifc, n)
		}
	}
	same := func(r stacks.Route) func(stacks.Route) bool {
		r.IfIndex = index
		return func(o stacks.Route) bool { o.IfIndex = index; return o == r }
	}
	for _, r := range old.Routes {
		if slices.ContainsFunc(next.Routes, same(r)) {
			continue
		}
		r.IfIndex = index
		if n := slices.Index(e.Routes, r); n >= 0 {
			e.Routes = slices.Delete(e.Routes, n, n+1)
		}
	}
	if next.MTU != 0 && next.MTU != old.MTU && next.MTU != ifc.MTU {
		e.setMTU(ifc, next.MTU)
	}
	for _, a := range next.Addrs {
		switch known := find(old.Addrs, a.Prefix); {
		case slices.Contains(ifc.Addrs, a.Prefix):
			if known == nil || known.Info != a.Info {
				e.changeAddrInfo(ifc, a.Prefix, a.Info)
			}
		case known == nil && (a.Prefix.Addr().Is4() || ifc.MTU >= minMTU6):
			e.addAddr(ifc, a.Prefix, a.Info)
		}
	}
	for _, r := range next.Routes {
		if slices.ContainsFunc(old.Routes, same(r)) || r.Dst.Addr().Is6() && ifc.MTU < minMTU6 {
			continue
		}
		r.IfIndex = index
		if !slices.ContainsFunc(e.Routes, func(o stacks.Route) bool { // as for a program: EEXIST
			return o.Dst == r.Dst && o.Gateway == r.Gateway && o.IfIndex == index && o.Main() && metricOf(o) == metricOf(r)
		}) {
			e.Routes = append(e.Routes, r)
		}
	}
	e.DNS = next.DNS
	return e.State
}

// metricOf is the metric of a route as it is told: those that an address of IPv6 brings
// have one.
func metricOf(r stacks.Route) int {
	if r.Metric == 0 && r.Dst.Addr().Is6() && connected(r) {
		return metricAddrconf
	}
	return r.Metric
}

func find(as []stacks.Address, p netip.Prefix) *stacks.Address {
	for i := range as {
		if as[i].Prefix == p {
			return &as[i]
		}
	}
	return nil
}
