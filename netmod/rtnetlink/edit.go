// SPDX-License-Identifier: Apache-2.0

// What a change of one thing does to the others: routes follow addresses, addresses
// follow interfaces.

package rtnetlink

import (
	"net/netip"
	"slices"

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
func (e *editor) addAddr(ifc *stacks.Interface, p netip.Prefix, route bool) {
	at := len(ifc.Addrs)
	if p.Addr().Is4() {
		ifc.Addrs = append(ifc.Addrs, p)
		if !secondary(ifc, at) {
			// Behind the last primary one of at most that scope.
			ifc.Addrs = ifc.Addrs[:at]
			for at > 0 && (ifc.Addrs[at-1].Addr().Is6() || secondary(ifc, at-1) || scopeOf(ifc.Addrs[at-1].Addr()) < scopeOf(p.Addr())) {
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
	if route {
		e.connect(ifc, p)
	}
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

// connect adds the route to the network of an address, unless there is one or the
// interface is down.
func (e *editor) connect(ifc *stacks.Interface, p netip.Prefix) {
	if ifc.Loop && p.Addr().Is4() || !ifc.Up || p.IsSingleIP() {
		return
	}
	r := stacks.Route{Dst: p.Masked(), Src: p.Addr(), IfIndex: ifc.Index}
	if !slices.ContainsFunc(e.Routes, func(o stacks.Route) bool {
		return o.Dst == r.Dst && o.IfIndex == r.IfIndex && connected(o)
	}) {
		e.Routes = append(e.Routes, r)
	}
}

// connected tells whether a route is one that the kernel makes for an address.
func connected(r stacks.Route) bool {
	return r.Main() && r.Refuses() == 0 && !r.Gateway.IsValid() && r.Metric == 0 && (r.Proto == 0 || r.Proto == unix.RTPROT_KERNEL)
}

// removeAddr removes the n-th address and what hangs on it: secondary addresses of
// IPv4, the route to its network, routes that prefer it as source, and with the
// last address of IPv4 all its routes (fib_del_ifaddr, fib_disable_ip).
func (e *editor) removeAddr(ifc *stacks.Interface, n int) {
	p := ifc.Addrs[n]
	gone := map[netip.Addr]bool{p.Addr(): true}
	if first := !secondary(ifc, n); p.Addr().Is4() && first {
		for _, q := range ifc.Addrs[n+1:] {
			if q.Masked() == p.Masked() {
				gone[q.Addr()] = true
			}
		}
	}
	subnet := p.Masked()
	i := -1
	ifc.Addrs = slices.DeleteFunc(ifc.Addrs, func(q netip.Prefix) bool {
		i++
		return i == n || p.Addr().Is4() && q.Masked() == subnet && gone[q.Addr()]
	})
	var still, any4 bool
	for _, q := range ifc.Addrs {
		still = still || q.Masked() == subnet
		any4 = any4 || q.Addr().Is4()
		delete(gone, q.Addr()) // it is there with another prefix
	}
	e.Routes = slices.DeleteFunc(e.Routes, func(r stacks.Route) bool {
		switch {
		case r.IfIndex == ifc.Index && !any4 && p.Addr().Is4() && r.Dst.Addr().Is4():
			return true
		case r.IfIndex == ifc.Index && r.Dst == subnet && connected(r):
			return !still
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
			if q.Masked() == subnet {
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
	ifc.Addrs = slices.DeleteFunc(ifc.Addrs, func(p netip.Prefix) bool { return p.Addr().Is6() })
	e.Routes = slices.DeleteFunc(e.Routes, func(r stacks.Route) bool {
		return r.Dst.Addr().Is6() && (r.IfIndex == ifc.Index || ifc.Loop && r.Refuses() != 0)
	})
}
