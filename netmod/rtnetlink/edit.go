// SPDX-License-Identifier: Apache-2.0

// What a change of one thing does to the others: routes follow addresses, addresses
// follow interfaces.

package rtnetlink

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"umrun/stacks"
)

// minMTU6 is the smallest MTU that IPv6 works with, RFC 8200 §5; below it Linux
// takes IPv6 off the interface.
const minMTU6 = 1280

var loopback6 = netip.PrefixFrom(netip.IPv6Loopback(), 128)

// An editor changes a copy of a State.
type editor struct{ stacks.State }

func edit(s stacks.State) *editor { return &editor{s.Clone()} }

// addAddr adds an address where the kernel would list it: inet_insert_ifa and
// ipv6_link_dev_addr.
func (e *editor) addAddr(ifc *stacks.Interface, p netip.Prefix, info stacks.AddrInfo) {
	if info.Added.IsZero() {
		info.Added = time.Now()
	}
	info.Changed = info.Added
	setInfo(ifc, p, info)
	at := len(ifc.Addrs)
	if p.Addr().Is4() {
		ifc.Addrs = append(ifc.Addrs, p)
		if !secondary(ifc, at) {
			// Behind the last primary one of at most that scope.
			ifc.Addrs = ifc.Addrs[:at]
			for at > 0 && (ifc.Addrs[at-1].Addr().Is6() || secondary(ifc, at-1) || addrScope(ifc, ifc.Addrs[at-1]) < addrScope(ifc, p)) {
				at--
			}
			ifc.Addrs = slices.Insert(ifc.Addrs, at, p)
		}
	} else {
		for i, q := range ifc.Addrs {
			if q.Addr().Is6() && scopeOrder(q.Addr()) <= scopeOrder(p.Addr()) {
				at = i
				break
			}
		}
		ifc.Addrs = slices.Insert(ifc.Addrs, at, p)
	}
	e.connect(ifc, p)
}

// scopeOrder is ipv6_addr_src_scope: the larger, the farther.
func scopeOrder(a netip.Addr) int {
	switch {
	case a.IsLoopback():
		return 1
	case a.IsLinkLocalUnicast():
		return 2
	}
	return 14
}

// connect adds the routes to the network of an address and to its peer, unless there
// are some or the interface is down: fib_add_ifaddr and addrconf_prefix_route.
func (e *editor) connect(ifc *stacks.Interface, p netip.Prefix) {
	if ifc.Loop && p.Addr().Is4() || !ifc.Up {
		return
	}
	info := ifc.Info[p]
	to := func(dst netip.Prefix) {
		r := stacks.Route{Dst: dst, Src: p.Addr(), IfIndex: ifc.Index}
		if info.Metric != 0 || p.Addr().Is6() && info.Peer.IsValid() {
			r.Proto, r.Metric = unix.RTPROT_KERNEL, info.Metric
			if r.Scope = unix.RT_SCOPE_LINK; p.Addr().Is6() {
				r.Scope, r.Src = unix.RT_SCOPE_UNIVERSE, netip.Addr{}
				r.Metric = cmp.Or(r.Metric, metricAddrconf)
			}
		}
		if !slices.ContainsFunc(e.Routes, func(o stacks.Route) bool {
			return o.Dst == r.Dst && o.IfIndex == r.IfIndex && o.Metric == r.Metric && connected(o)
		}) {
			e.Routes = append(e.Routes, r)
		}
	}
	network := ifc.Network(p)
	if p.Addr().Is6() && info.Peer.IsValid() {
		to(netip.PrefixFrom(info.Peer, 128))
	}
	single := network.IsSingleIP() && network.Addr() == p.Addr()
	if info.Flags&noPrefixRoute == 0 && (!single || p.Addr().Is6() && p != loopback6) {
		to(network)
	}
}

// connected tells whether a route is one that the kernel makes for an address.
func connected(r stacks.Route) bool {
	return r.Main() && r.Refuses() == 0 && !r.Gateway.IsValid() &&
		(r.Proto == 0 && r.Metric == 0 || r.Proto == unix.RTPROT_KERNEL)
}

// removeAddr removes the n-th address and what hangs on it: secondary addresses of
// IPv4, the route to its network, routes that prefer it as source, and with the
// last address of IPv4 all its routes (fib_del_ifaddr, fib_disable_ip).
func (e *editor) removeAddr(ifc *stacks.Interface, n int) {
	p := ifc.Addrs[n]
	gone := map[netip.Addr]bool{p.Addr(): true}
	subnet, peer, metric := ifc.Network(p), ifc.Info[p].Peer, ifc.Info[p].Metric
	if first := !secondary(ifc, n); p.Addr().Is4() && first {
		for _, q := range ifc.Addrs[n+1:] {
			if ifc.Network(q) == subnet {
				gone[q.Addr()] = true
			}
		}
	}
	i := -1
	networks := make(map[netip.Prefix]netip.Prefix) // while Info is whole
	for _, q := range ifc.Addrs {
		networks[q] = ifc.Network(q)
	}
	ifc.Addrs = slices.DeleteFunc(ifc.Addrs, func(q netip.Prefix) bool {
		i++
		del := i == n || p.Addr().Is4() && networks[q] == subnet && gone[q.Addr()]
		if del {
			delete(ifc.Info, q)
		}
		return del
	})
	var still, any4 bool
	for _, q := range ifc.Addrs {
		still = still || networks[q] == subnet && ifc.Info[q].Metric == metric
		any4 = any4 || q.Addr().Is4()
		delete(gone, q.Addr()) // it is there with another prefix
	}
	if p.Addr().Is6() && metric == 0 {
		metric = metricAddrconf
	}
	e.Routes = slices.DeleteFunc(e.Routes, func(r stacks.Route) bool {
		switch {
		case r.IfIndex == ifc.Index && !any4 && p.Addr().Is4() && r.Dst.Addr().Is4():
			return true
		case r.IfIndex == ifc.Index && r.Dst == subnet && connected(r) && (r.Metric == 0 || r.Metric == metric):
			return !still
		case r.IfIndex == ifc.Index && peer.Is6() && r.Dst == netip.PrefixFrom(peer, 128) && connected(r):
			return true
		}
		return gone[r.Src]
	})
	if still {
		e.source(ifc, subnet)
	}
}

// source makes the route to a network prefer an address that is left there.
func (e *editor) source(ifc *stacks.Interface, subnet netip.Prefix) {
	for i := range e.Routes {
		r := &e.Routes[i]
		if r.IfIndex != ifc.Index || r.Dst != subnet || !connected(*r) {
			continue
		}
		for _, q := range ifc.Addrs {
			if ifc.Network(q) == subnet {
				r.Src = q.Addr()
				break
			}
		}
	}
}

// setUp takes an interface up or down. Down: its routes go, and its IPv6 addresses.
// Up: the routes to its networks come back, and ::1 to the loopback interface.
func (e *editor) setUp(ifc *stacks.Interface, up bool) {
	if ifc.Up == up {
		return
	}
	ifc.Up = up
	if !up {
		e.dropIPv6(ifc)
		e.Routes = slices.DeleteFunc(e.Routes, func(r stacks.Route) bool { return r.IfIndex == ifc.Index })
		e.Neighbours = slices.DeleteFunc(e.Neighbours, func(n stacks.Neighbour) bool { return n.IfIndex == ifc.Index })
		return
	}
	if ifc.Loop && ifc.MTU >= minMTU6 && !slices.Contains(ifc.Addrs, loopback6) {
		ifc.Addrs = append(ifc.Addrs, loopback6)
	}
	for n, p := range ifc.Addrs {
		if p.Addr().Is6() || !secondary(ifc, n) {
			e.connect(ifc, p)
		}
	}
}

// setMTU changes the MTU; below what IPv6 needs, its addresses go.
func (e *editor) setMTU(ifc *stacks.Interface, mtu int) {
	ifc.MTU = mtu
	if mtu < minMTU6 {
		e.dropIPv6(ifc)
	}
}

func (e *editor) dropIPv6(ifc *stacks.Interface) {
	ifc.Addrs = slices.DeleteFunc(ifc.Addrs, func(p netip.Prefix) bool {
		if p.Addr().Is6() {
			delete(ifc.Info, p)
		}
		return p.Addr().Is6()
	})
	e.Routes = slices.DeleteFunc(e.Routes, func(r stacks.Route) bool {
		return r.Dst.Addr().Is6() && (r.IfIndex == ifc.Index || ifc.Loop && r.Refuses() != 0)
	})
}
